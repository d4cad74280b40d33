// A tenth of the mesh that is promised.
import { sizeSuite } from './size-suite.js';

sizeSuite({
  services: 300,
  instances: 3000,
  everyMs: 2000,
  connectMsMax: 120_000,
  flowMs: 10_000,
  readerRounds: 5,
  readerMs: 3000,
});
