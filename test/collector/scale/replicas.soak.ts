// The mesh that is promised.
import { replicasSuite } from './replicas-suite.js';

replicasSuite({ services: 3000, instances: 30_000, everyMs: 20_000, connectMsMax: 300_000, flowMs: 30_000 });
