// The same for longer, with the figures that are promised.
import './load.test.js';
