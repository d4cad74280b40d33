/** The suites with larger counts under TEST_LONG=1: 1000 requests/s for a minute through a trap, 1 GiB of headers, 20,000 forgeries. */
import './header-order.test.js';
import './rollback-collector.test.js';
import './rollback-passing.test.js';
import './vm-faults.test.js';
