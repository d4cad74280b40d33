// Root contexts: one plugin configuration each, several to a VM. They hold settings; what is counted
// and reported belongs to the VM.
import { Text } from './bytes';
import { Config, ROLE_FULL, ROLE_ORDER } from './config';
import * as host from './host';

/** Settings and counters of one root context: one plugin configuration in one listener direction. */
export class Root {
  id: u32 = 0;
  config: Config = new Config();
  /** 1 inbound, 2 outbound, 3 gateway: both sides of a request; 0 not known yet. */
  side: i32 = 0;
  trace: usize = 0; // trace.headers, compiled by core/headers
  transactionHeader: Text = new Text('');
  /** rollback.callback.path in its plain form: closed to the network. */
  callback: Text = new Text('');
  /** Bit per side: `role: order` follows in the upstream chain, so headers are left to it. */
  orderSeen: u32 = 0;
  /** Bit per side: it was expected and did not come. */
  orderMissed: u32 = 0;
  /** Per cluster (by name id): bit 0 looked at, bit 1 in the mesh. Settings and clusters change, so it is asked anew each minute. */
  facts: usize = 0;
  factsUntilMs: u64 = 0;
  /** Hash of the settings' text: their faults are told once per process. */
  configHash: u64 = 0;
  faultsTold: bool = true;
  /** What Envoy's tracer adds, by shape of the request; see injected.ts. */
  injected: usize = 0;
  dead: bool = false;
  streams: u32 = 0;
  /** Requests whose destination port was looked at: a few tell every port there is. */
  portLooks: u32 = 0;
}

export const roots: Root[] = [];

let lastRoot: Root | null = null;

export function rootOf(id: u32): Root | null {
  const last = lastRoot;
  if (last !== null && last.id == id) return last;
  for (let i = 0; i < roots.length; i++) if (unchecked(roots[i]).id == id) return (lastRoot = unchecked(roots[i]));
  return null;
}

export function createRoot(id: u32): void {
  if (rootOf(id) !== null) return;
  // A root that ended is kept only while it still has streams.
  for (let i = roots.length - 1; i >= 0; i--) {
    if (roots[i].dead && roots[i].streams == 0) {
      if (roots[i].trace != 0) heap.free(roots[i].trace);
      if (roots[i].injected != 0) heap.free(roots[i].injected);
      if (roots[i].facts != 0) heap.free(roots[i].facts);
      if (lastRoot === roots[i]) lastRoot = null;
      roots.splice(i, 1);
    }
  }
  const root = new Root();
  root.id = id;
  roots.push(root);
}

const P_DIRECTION = new Text('xds\0listener_direction');
const P_DIRECTION_OLD = new Text('listener_direction');

/**
 * Which way does this request's listener look? Envoy gives listeners with equal settings one root
 * context, so the answer belongs to the request.
 */
export function sideOf(root: Root): i32 {
  if (root.side != 0) return root.side;
  let d = host.getNumber(P_DIRECTION.ptr, P_DIRECTION.size, 99);
  if (d == 99) d = host.getNumber(P_DIRECTION_OLD.ptr, P_DIRECTION_OLD.size, 99);
  return d == 2 ? 2 : 1;
}

/** The root whose settings say where to report; null when there is none. */
export function reporter(): Root | null {
  for (let i = 0; i < roots.length; i++) {
    const root = unchecked(roots[i]);
    if (!root.dead && root.config.role == ROLE_FULL && root.config.collectorCluster.length > 0) return root;
  }
  return null;
}

/** Some root of this VM has `role: order`. */
let orderPresent: bool = false;

export function lookForOrder(): void {
  const before = orderPresent;
  orderPresent = false;
  for (let i = 0; i < roots.length; i++) if (!roots[i].dead && roots[i].config.role == ROLE_ORDER) orderPresent = true;
  // What was learned without it is out of date.
  if (orderPresent && !before) for (let i = 0; i < roots.length; i++) roots[i].orderMissed = 0;
}

/** Will `order` follow this request upstream? As learned; before that, if there is one at all. */
export function orderExpected(root: Root, side: i32): bool {
  const bit: u32 = 1 << side;
  return (root.orderSeen & bit) != 0 || (orderPresent && (root.orderMissed & bit) == 0);
}

/** Rows are made only while somebody is told of them. */
export let reporting: bool = false;

export function setReporting(value: bool): void {
  reporting = value;
}
