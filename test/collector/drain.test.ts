import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startFleet, type RunningFleet } from './scale/fleets.js';
import { spawnMeasured, type Measured } from './scale/measured.js';

/** At two collectors, half at each: 500 where a drain of 500 is promised. */
const STREAMS = process.env['TEST_LONG'] === '1' ? 1000 : 300;
const DRAIN_MS = 3000;

/** What a stop takes beyond the drain: calls that are cut off, the log, and a busy machine. */
const GRACE_MS = 5000;

/** Ends after which a sidecar comes back at once: it was done, told to go elsewhere, or cut off with that. */
const RETRYABLE = new Set(['0', '14', 'cut']);

describe('a drain under load', function () {
  this.timeout(120_000);
  const folder = mkdtempSync(join(tmpdir(), 'meshpulse-drain-'));
  const collectors: Measured[] = [];
  let fleet: RunningFleet;
  after(async () => {
    await fleet.end();
    for (const collector of collectors) await collector.kill();
    rmSync(folder, { recursive: true, force: true });
  });

  it(`of ${STREAMS / 2} streams: not ready first, every stream moves on, nothing acknowledged is gone`, async () => {
    for (const name of ['a', 'b']) {
      collectors.push(await spawnMeasured(['--drain-time', `${DRAIN_MS}ms`, '--data-dir', join(folder, name)]));
    }
    const [leaving, staying] = collectors as [Measured, Measured];
    const addresses = [leaving.grpc, staying.grpc];
    const plan = {
      collectors: addresses,
      services: 20,
      instances: STREAMS,
      perConnection: 10,
      everyMs: 200,
      batchEvery: 1,
    };
    fleet = startFleet(plan);
    await fleet.until('all connected', ({ connected }) => connected === STREAMS, 60_000);
    await new Promise(resolve => setTimeout(resolve, 1000));

    const beganMs = performance.now();
    leaving.process.kill('SIGTERM');
    let notReadyMs = Number.NaN;
    while (Number.isNaN(notReadyMs)) {
      const { status } = await fetch(`http://${leaving.http}/readyz`);
      if (status === 503) notReadyMs = performance.now() - beganMs;
      else await new Promise(resolve => setTimeout(resolve, 20));
    }
    const { ends: endsThen } = await fleet.figures();
    assert.deepEqual(await leaving.exited, [0, null]);
    const tookMs = performance.now() - beganMs;
    const { figures } = await fleet.until('all at the other', ({ connected }) => connected === STREAMS, 30_000);
    await fleet.noMore();
    const { figures: last } = await fleet.until('all acknowledged', one => one.acked === one.made, 30_000);

    console.log(
      `      not ready after ${notReadyMs.toFixed(0)} ms, stopped after ${tookMs.toFixed(0)} ms of ${DRAIN_MS} ms; ` +
        `streams ended ${JSON.stringify(figures.ends)}; ${last.made} events made, all acknowledged`,
    );
    const odd = Object.keys(figures.ends).filter(end => !RETRYABLE.has(end));
    assert.deepEqual(odd, [], JSON.stringify(figures.ends));
    assert.ok(Object.values(endsThen).reduce((a, b) => a + b, 0) < STREAMS, 'not ready before all streams had gone');
    assert.ok(tookMs <= DRAIN_MS + GRACE_MS, `${tookMs} ms`);
  });
});
