// The load: sidecars that report healthy traffic, each once a second. A process of its own, so that
// making it does not delay what is timed; told by its parent when to send.
import { Batches, healthy, loadHello, newKey } from './messages.js';
import { Sidecar } from './sidecar.js';

const SIDECARS = 25;
const ROWS_PER_CHECKOUT = 4;
const FIRST_NUMBER = 100;
/** Keys that no probe has. */
const FIRST_KEY = 2 ** 40;

const [address = '', rate = '0'] = process.argv.slice(2);
const checkouts = Math.round(Number(rate) / SIDECARS / ROWS_PER_CHECKOUT);
let sending = false;
let rows = 0;
let key = FIRST_KEY;

const sidecars = Array.from({ length: SIDECARS }, (_, i) => ({
  sidecar: new Sidecar(address, loadHello(FIRST_NUMBER + i)),
  batches: new Batches(FIRST_NUMBER + i),
}));

let turn = 0;
setInterval(() => {
  if (!sending) return;
  const { sidecar, batches } = sidecars[turn++ % SIDECARS]!;
  const made = Array.from({ length: checkouts }, () => healthy(newKey(key++))).flat();
  sidecar.send(batches.next(made, Date.now()));
  rows += made.length;
}, 1000 / SIDECARS);

process.on('message', (message: { sending: boolean }) => {
  sending = message.sending;
  process.send?.({ rows });
});
process.on('disconnect', () => process.exit(0));
process.send?.({ rows });
