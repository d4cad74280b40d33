import { failoverSuite } from './store-failover.js';

failoverSuite({ kills: 15, writesPerSecond: 5000 });
