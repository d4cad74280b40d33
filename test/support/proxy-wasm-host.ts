/**
 * A proxy-wasm host in Node: runs a filter module the way Envoy does, under a clock that the test turns.
 *
 *     const proxy = new ProxyProcess({ wasm, workers: 2 });
 *     const plugin = proxy.addPlugin({ configuration: '{}' });
 *     const exchange = proxy.exchange(0, plugin, { headers: [[':method', 'GET'], …] });
 *     exchange.requestHeaders();
 *     exchange.responseHeaders([[':status', '200']]);
 *     exchange.finish();
 *     proxy.clock.advance(1000); // ticks, queue callbacks, gRPC answers
 *
 * What it is for: every host status on every call, traps, several VMs, canaries, and remote ends that
 * misbehave, a million times a minute. What it is not: a proof of wire order. That needs a real proxy.
 */
export * from './proxy-wasm/abi.js';
export { bytesOf, lowerAscii, textOf } from './proxy-wasm/bytes.js';
export type { LocalResponse } from './proxy-wasm/context.js';
export { Exchange, ResponseFlag, type Attempt, type ExchangeOptions } from './proxy-wasm/exchange.js';
export { FakeClock } from './proxy-wasm/fake-clock.js';
export { Faults, type Fault } from './proxy-wasm/faults.js';
export { GrpcServerCall, GrpcServerStream, grpcTarget, type GrpcRemote } from './proxy-wasm/grpc.js';
export { HeaderMap } from './proxy-wasm/header-map.js';
export { HttpServerCall, type HttpRemote, type HttpReply } from './proxy-wasm/http-call.js';
export { importsOutside, moduleProblems, readModule, type ModuleShape } from './proxy-wasm/module-check.js';
export { decodePairs, encodePairs, utf8Pairs, type Pair } from './proxy-wasm/pairs.js';
export {
  ConfigurationRejected,
  ProxyProcess,
  seededRandom,
  type FailurePolicy,
  type Plugin,
  type PluginOptions,
  type ProxyOptions,
} from './proxy-wasm/process.js';
export { double, Message, struct, type PropertyTree, type PropertyValue } from './proxy-wasm/properties.js';
export type { RootContext } from './proxy-wasm/root-context.js';
export type { StreamContext } from './proxy-wasm/stream-context.js';
export type { Vm, VmFailure } from './proxy-wasm/vm.js';
