// A collector whose streams fail for a minute, in real time.
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../demo/src/mesh/child.js';
import { Stage } from './support/fault-stage.js';

/** A stream that fails is tried again after at most so long (backoff), when it had failed before. */
const FALLBACK_AFTER_MS = 30_000;
const STREAM_AGAIN_MS = 60_000;
const SLACK_MS = 10_000;
/** A unary call that was under way when the stream opened has come by then. */
const UNARY_ENDED_MS = 3000;

describe('a collector whose streams fail', function () {
  this.timeout(180_000);

  it('three failed streams within a minute: unary calls carry everything, and a minute later a stream again', async () => {
    const stage = await Stage.start();
    try {
      const { recorder } = stage;
      recorder.stream = { kind: 'reset' };
      const failedSince = Date.now();
      await stage.load(100);
      await until('unary calls', FALLBACK_AFTER_MS, () => (recorder.calls > 0 ? true : undefined));
      const unarySince = Date.now();
      await stage.load(200);
      await stage.nothingLost();
      const streams = recorder.streamsOpened;
      recorder.stream = { kind: 'ack' };
      await until('a stream again', STREAM_AGAIN_MS + SLACK_MS, () =>
        recorder.streamsOpened > streams ? true : undefined,
      );
      assert.ok(Date.now() - unarySince > STREAM_AGAIN_MS - SLACK_MS, 'not before its time');
      assert.ok(unarySince - failedSince < FALLBACK_AFTER_MS);
      await sleep(UNARY_ENDED_MS);
      const calls = recorder.calls;
      await stage.load(100);
      await stage.nothingLost();
      assert.equal(recorder.calls, calls, 'no more unary calls');
    } finally {
      await stage.stop();
    }
  });
});
