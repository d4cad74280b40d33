import { failoverSuite } from './store-failover.js';

failoverSuite({ kills: 3, writesPerSecond: 5000 });
