/** The shipped module itself: what it may ask of a proxy, what it offers, how large it may be. */
import assert from 'node:assert/strict';
import { importsOutside, moduleProblems, readModule, type ModuleShape } from '../support/proxy-wasm-host.js';
import { filterModule } from './guests.js';

/** Everything the filter may import. A longer list is a decision: each entry must exist in every supported proxy. */
const IMPORTS_ALLOWED: readonly string[] = [
  ...[
    'add_header_map_value',
    'call_foreign_function',
    'define_metric',
    'dequeue_shared_queue',
    'done',
    'enqueue_shared_queue',
    'get_buffer_bytes',
    'get_header_map_pairs',
    'get_header_map_value',
    'get_property',
    'get_shared_data',
    'get_status',
    'grpc_call',
    'grpc_cancel',
    'grpc_close',
    'grpc_send',
    'grpc_stream',
    'http_call',
    'increment_metric',
    'log',
    'register_shared_queue',
    'remove_header_map_value',
    'resolve_shared_queue',
    'send_local_response',
    'set_effective_context',
    'set_header_map_pairs',
    'set_property',
    'set_shared_data',
    'set_tick_period_milliseconds',
  ].map(name => `env.proxy_${name}`),
  'wasi_snapshot_preview1.clock_time_get',
  'wasi_snapshot_preview1.random_get',
];

/** A proxy compiles the module once and instantiates it per thread. */
const MODULE_BYTES_MAX = 128 * 1024;
/** 64 KiB pages: the most that one VM can ever hold. */
const MEMORY_PAGES_MAX = 256;
/** What a VM takes before its first request: (workers + 1) times this is part of the 25 MiB budget. */
const MEMORY_PAGES_AT_START_MAX = 64;

describe('the filter module', () => {
  let shape: ModuleShape;
  before(() => {
    shape = readModule(filterModule());
  });

  it('links to the proxy: every import and callback has the exact type', () => {
    assert.deepEqual(moduleProblems(shape), []);
  });

  it('imports nothing beyond the allow-list', () => {
    assert.deepEqual(importsOutside(shape, IMPORTS_ALLOWED), []);
  });

  it('offers ABI 0.2.1 and the callbacks it needs', () => {
    const needed = [
      'proxy_abi_version_0_2_1',
      '_initialize',
      ...['on_vm_start', 'on_configure', 'on_context_create', 'on_tick', 'on_done', 'on_log', 'on_delete'].map(
        n => `proxy_${n}`,
      ),
      ...['on_request_headers', 'on_response_headers', 'on_queue_ready', 'on_grpc_receive', 'on_grpc_close'].map(
        n => `proxy_${n}`,
      ),
    ];
    assert.deepEqual(
      needed.filter(name => !shape.functions.has(name)),
      [],
    );
  });

  it('offers no callback that re-enters the VM or whose size the host miscounts', () => {
    const harmful = [
      'proxy_on_grpc_receive_initial_metadata',
      'proxy_on_grpc_receive_trailing_metadata',
      'envoy_on_stats_update',
    ];
    assert.deepEqual(
      harmful.filter(name => shape.functions.has(name)),
      [],
    );
  });

  it('is small, and its memory is capped', () => {
    assert.ok(shape.byteLength <= MODULE_BYTES_MAX, `${String(shape.byteLength)} bytes`);
    assert.ok(shape.memoryPages?.max !== undefined && shape.memoryPages.max <= MEMORY_PAGES_MAX, 'a maximum');
    assert.ok(shape.memoryPages.min <= MEMORY_PAGES_AT_START_MAX, `${String(shape.memoryPages.min)} pages at start`);
  });
});
