// The HTTP filters that the mesh's proxies run, as configuration objects.
import { any, type Json } from './json.js';

/** pluginConfig of the filter, as users write it: nested objects under the documented keys. */
export type FilterSettings = Json;

export type FailurePolicy = 'FAIL_OPEN' | 'FAIL_CLOSED' | 'FAIL_RELOAD';

export interface WasmModule {
  /** Absolute path of the module. */
  file: string;
  failurePolicy?: FailurePolicy;
  /** Plugins of one vm_id and one module share their VM and their shared data. */
  vmId?: string;
  /** Fixes the name of the plugin and its root context. */
  name?: string;
  /** Environment variables of the VM. */
  environment?: Record<string, string>;
}

/** The Wasm filter, for a downstream chain or a router's upstream chain. */
export function wasmFilter(module: WasmModule, settings: FilterSettings): Json {
  const name = module.name ?? 'meshpulse';
  return {
    name,
    typed_config: any('envoy.extensions.filters.http.wasm.v3.Wasm', {
      config: {
        name,
        root_id: name,
        failure_policy: module.failurePolicy ?? 'FAIL_OPEN',
        vm_config: {
          vm_id: module.vmId ?? 'meshpulse',
          runtime: 'envoy.wasm.runtime.v8',
          code: { local: { filename: module.file } },
          ...(module.environment ? { environment_variables: { key_values: module.environment } } : {}),
        },
        configuration: any('google.protobuf.StringValue', { value: JSON.stringify(settings) }),
      },
    }),
  };
}

/** A Lua filter with `source` defining envoy_on_request and/or envoy_on_response. */
export function luaFilter(source: string, name = 'lua'): Json {
  return {
    name,
    typed_config: any('envoy.extensions.filters.http.lua.v3.Lua', { default_source_code: { inline_string: source } }),
  };
}

/**
 * The router. `upstreamFilters` run once per attempt, after Envoy has put the trace context into the
 * request: the only place in a chain from which a filter can move it.
 */
export function routerFilter(upstreamFilters: Json[] = []): Json {
  const codec = {
    name: 'envoy.filters.http.upstream_codec',
    typed_config: any('envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec'),
  };
  return {
    name: 'envoy.filters.http.router',
    typed_config: any(
      'envoy.extensions.filters.http.router.v3.Router',
      upstreamFilters.length > 0 ? { upstream_http_filters: [...upstreamFilters, codec] } : {},
    ),
  };
}
