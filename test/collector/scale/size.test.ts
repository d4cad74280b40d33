import { sizeSuite } from './size-suite.js';

sizeSuite({
  services: 40,
  instances: 400,
  everyMs: 1000,
  connectMsMax: 60_000,
  flowMs: 1000,
  readerRounds: 1,
  readerMs: 1000,
});
