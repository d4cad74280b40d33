/** The suites with larger counts under TEST_LONG=1: 1000 requests/s for a minute through a trap, 1 GiB of headers. */
import './header-order.test.js';
import './vm-faults.test.js';
