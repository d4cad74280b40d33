import { replicasSuite } from './replicas-suite.js';

replicasSuite({ services: 300, instances: 3000, everyMs: 2000, connectMsMax: 120_000, flowMs: 10_000 });
