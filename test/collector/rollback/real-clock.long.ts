/** A real collector whose wall clock is set back while it runs, by libfaketime (Debian: faketime). */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { POLICY } from '../../../bench/signal/messages.js';
import { Shop } from '../../../bench/signal/shop.js';
import type { Plain } from '../ingest-support.js';
import { spawnCollector } from '../process-support.js';
import { Clients, until } from '../rpc-support.js';

const LIBRARY = '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1';
const FAILURES = 20;

const secondsOf = (time: unknown): number => Number((time as { seconds: string }).seconds);

describe('a collector whose clock is set back by 5 min', function () {
  this.timeout(120_000);

  it('goes on deciding, telling and signalling, and nothing lasts less than no time', async function () {
    if (!existsSync(LIBRARY)) this.skip();
    const dir = mkdtempSync(join(tmpdir(), 'meshpulse-clock-'));
    const [policy, offset] = [join(dir, 'policy.yaml'), join(dir, 'offset')];
    writeFileSync(policy, POLICY);
    writeFileSync(offset, '+0\n');
    const child = await spawnCollector(['--rollback-policy', policy, '--data-dir', join(dir, 'data')], {
      LD_PRELOAD: LIBRARY,
      FAKETIME_TIMESTAMP_FILE: offset,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
    });
    const clients = new Clients(child.grpc);
    const shop = Shop.start(child.grpc);
    try {
      await shop.teach();
      for (let n = 0; n < FAILURES; n++) await shop.fail();
      writeFileSync(offset, '-300\n');
      for (let n = 0; n < FAILURES; n++) await shop.fail();
      // Those whose verdicts lie 5 min ahead by now are signalled too.
      await until('all signals', () => (shop.signals.length === 2 * FAILURES ? true : undefined));
      const { verdicts } = (await clients.call('Rollback.List', { pageSize: 1000 })) as { verdicts: Plain[] };
      assert.equal(verdicts.length, 2 * FAILURES, 'each failure is one verdict, and nothing else is');
      const decided = verdicts.map(verdict => secondsOf(verdict['decided']));
      assert.ok(Math.max(...decided) - Math.min(...decided) > 250, 'the clock was set back');
      for (const verdict of verdicts) {
        assert.equal(verdict['wrong'], false);
        assert.ok(secondsOf(verdict['ended']) >= secondsOf(verdict['decided']), JSON.stringify(verdict));
      }
      const metrics = await (await fetch(`http://${child.http}/metrics`)).text();
      const offsets = metrics.split('\n').filter(line => line.startsWith('meshpulse_clock_offset_seconds{'));
      assert.ok(
        offsets.some(line => Math.abs(Number(line.split(' ').at(-1)) - 300) < 5),
        offsets.join('\n'),
      );
      const errors = child.lines.filter(line => line['level'] === 'error');
      assert.deepEqual(errors, []);
    } finally {
      shop.close();
      clients.close();
      child.process.kill('SIGKILL');
      await child.exited;
    }
  });
});
