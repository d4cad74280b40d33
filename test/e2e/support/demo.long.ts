import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT } from '../../../demo/src/mesh/envoy.js';

const run = promisify(execFile);
/** Twice what it takes on a machine with two cores. */
const DEMO_MS = 120_000;

describe('the demo', function () {
  this.timeout(DEMO_MS + 10_000);

  const seen = async (more: Readonly<Record<string, string>>): Promise<string> => {
    const env = { ...process.env, ...more };
    const { stdout } = await run(process.execPath, [join(ROOT, 'build/js/demo/src/main.js')], {
      timeout: DEMO_MS,
      env,
    });
    assert.match(stdout, /Summary/);
    assert.doesNotMatch(stdout, /NOT SEEN/);
    return stdout;
  };

  it('sees every promise it makes, and ends by itself', async () => {
    await seen({});
  });

  it('sees them with two collectors on one Redis as well', async () => {
    assert.match(await seen({ STORE: 'redis', REPLICAS: '2' }), /collector 1 \d+, collector 2 \d+/);
  });
});
