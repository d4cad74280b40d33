/** What several suites start with. */
import type { Pair } from '../support/proxy-wasm-host.js';
import { assertAlive, Sidecar, type RequestOptions, type SidecarOptions } from './sidecar.js';

export const OK: readonly Pair[] = [[':status', '200']];
export const GRPC: Pair = ['content-type', 'application/grpc'];
export const PROGRESS_PATH = '/.well-known/meshpulse/progress';

/** One gRPC frame with a body of `size` bytes. */
export function frame(size: number): Buffer {
  const bytes = Buffer.alloc(5 + size);
  bytes.writeUInt32BE(size, 1);
  return bytes;
}

/**
 * To be called in a `describe`: starts sidecars, and fails each test after which one of them has trapped.
 *
 * @param connected  wait until the stream is up
 */
export function sidecars(connected: boolean): (options?: SidecarOptions) => Sidecar {
  const alive: Sidecar[] = [];
  afterEach(() => {
    for (const sidecar of alive.splice(0)) assertAlive(sidecar);
  });
  return (options = {}) => {
    const sidecar = new Sidecar(options);
    alive.push(sidecar);
    if (connected) sidecar.connect();
    return sidecar;
  };
}

/** The application tells its own sidecar of a job. @returns what the filter did, and the answer's status */
export function postProgress(
  sidecar: Sidecar,
  headers: readonly Pair[],
  options: RequestOptions & { path?: string; method?: string } = {},
): { action: string; code: number | undefined } {
  const { path = PROGRESS_PATH, method = 'POST', ...rest } = options;
  const exchange = sidecar.call({
    rawHeaders: [[':authority', 'localhost'], [':path', path], [':method', method], [':scheme', 'http'], ...headers],
    properties: { xds: { cluster_name: 'PassthroughCluster' } },
    ...rest,
  });
  const action = exchange.requestHeaders();
  exchange.finish();
  return { action, code: exchange.localReply?.code };
}
