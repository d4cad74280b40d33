// The mesh that is promised.
import { sizeSuite } from './size-suite.js';

sizeSuite({
  services: 3000,
  instances: 30_000,
  everyMs: 20_000,
  connectMsMax: 300_000,
  flowMs: 30_000,
  readerRounds: 5,
  readerMs: 5000,
});
