// The same, twenty kills and a partition of half a minute.
import './crash.test.js';
