// The same, with leases that run out on a real Redis too.
import './replicas.test.js';
