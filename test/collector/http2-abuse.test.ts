import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { percentile } from './process-support.js';
import { KINDS, type Attack, type Kind, type Outcome } from './scale/attacks.js';
import { spawnMeasured, type Measured } from './scale/measured.js';
import { Probe } from './scale/readers.js';

const LONG = process.env['TEST_LONG'] === '1';
const PROCESS = fileURLToPath(new URL('./scale/attack-process.js', import.meta.url));

/** How many of each: as promised in the longer run. */
const COUNTS: Readonly<Record<Kind, number>> = {
  'rapid reset': LONG ? 100_000 : 10_000,
  'resets that the server is made to send': LONG ? 100_000 : 10_000,
  'PING flood': LONG ? 100_000 : 20_000,
  'SETTINGS flood': LONG ? 100_000 : 20_000,
  'CONTINUATION flood': LONG ? 100_000 : 10_000,
  'idle connections': LONG ? 10_000 : 500,
  'half-open connections': LONG ? 2000 : 300,
  'bodies byte by byte': LONG ? 500 : 100,
};
const HOLD_MS = LONG ? 8000 : 1000;
const ROUNDS = LONG ? 3 : 1;

/** Memory that an attack may take while it lasts: 10,000 connections of their own cost some. */
const GROWN_MIB_MAX = LONG ? 600 : 200;

/** Every report is still answered within this time, ms. */
const WAIT_MS_MAX = 5000;

describe('HTTP/2 misused', function () {
  this.timeout(LONG ? 300_000 : 60_000);
  let collector: Measured;
  let attacker: ChildProcess;
  let probe: Probe;
  before(async () => {
    collector = await spawnMeasured(['--log-level', 'info']);
    attacker = fork(PROCESS, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    probe = new Probe(collector.grpc);
    await probe.begin();
  });
  after(async () => {
    probe.end();
    attacker.kill('SIGKILL');
    await collector.kill();
  });

  for (const kind of KINDS) {
    it(`${kind}, ${COUNTS[kind]}: it lives, its memory is bounded, and others are served`, async () => {
      const before = await collector.figures();
      const waits: Record<'quiet' | 'attacked', number[]> = { quiet: [], attacked: [] };
      let outcome: Outcome = { sent: 0, cut: 0 };
      let peakMib = 0;
      for (let round = 0; round < ROUNDS; round++) {
        waits.quiet.push(...(await probe.measure(500, 5)));
        const what: Attack = { kind, address: collector.grpc, count: COUNTS[kind] / ROUNDS, holdMs: HOLD_MS / ROUNDS };
        const over = once(attacker, 'message') as Promise<[Outcome]>;
        attacker.send(what);
        let running = true;
        void over.then(() => (running = false));
        while (running) {
          waits.attacked.push(...(await probe.measure(100, 5)));
          peakMib = Math.max(peakMib, (await collector.figures()).rssMib);
        }
        const [{ sent, cut }] = await over;
        outcome = { sent: outcome.sent + sent, cut: outcome.cut + cut };
      }
      const shown = (all: readonly number[]): string =>
        `${percentile(all, 0.5).toFixed(1)} / ${percentile(all, 0.99).toFixed(1)} ms`;
      const ratio = percentile(waits.attacked, 0.99) / percentile(waits.quiet, 0.99);
      console.log(
        `      ${outcome.sent} sent, ${outcome.cut} connections cut; ${(peakMib - before.rssMib).toFixed(0)} MiB more; ` +
          `p50 / p99 of a report ${shown(waits.quiet)}, attacked ${shown(waits.attacked)} (${ratio.toFixed(1)} times)`,
      );
      assert.equal(collector.process.exitCode, null);
      assert.ok(peakMib - before.rssMib < GROWN_MIB_MAX, `${peakMib - before.rssMib} MiB more`);
      assert.ok(Math.max(...waits.attacked) < WAIT_MS_MAX, `a report waited ${Math.max(...waits.attacked)} ms`);
    });
  }

  it('leaves no stream behind', async () => {
    const text = await (await fetch(`http://${collector.http}/metrics`)).text();
    assert.equal(/^meshpulse_report_streams (\d+)$/m.exec(text)?.[1], '1');
  });
});
