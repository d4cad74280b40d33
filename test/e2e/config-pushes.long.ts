// New configurations under load: no request fails, every one is counted, and the VMs do not grow.
import { assertSound, configPushes } from './support/config-pushes.js';

const PUSHES = 30;
const DURATION_MS = 45_000;
const LIMIT_MS = 180_000;

describe('configuration pushed under load', function () {
  this.timeout(LIMIT_MS);

  for (const by of ['filter', 'listener'] as const) {
    it(`${PUSHES} times, by ${by}: no request fails or is missing, and linear memory stays`, async () => {
      const plan = { by, pushes: PUSHES, ratePerSecond: 200, durationMs: DURATION_MS, sampleMs: 1000 };
      assertSound(await configPushes(plan), plan);
    });
  }
});
