// What is wrong, or unwise, in a file of settings: Kubernetes objects, Envoy's configuration, or a pluginConfig alone. Pure.

export interface Finding {
  readonly level: 'error' | 'warning';
  /** Where in the file, as `spec.pluginConfig`. */
  readonly where: string;
  readonly text: string;
}

export interface Found {
  readonly findings: Finding[];
  /** Settings of the filter that were looked at. */
  readonly configs: number;
}

type Fields = Readonly<Record<string, unknown>>;

/** Nesting past which nothing is looked for. */
const DEPTH_MAX = 64;

const PLUGIN_KINDS = new Set(['WasmPlugin', 'TrafficExtension']);
const RETRY_FIELDS = new Set(['retry_on', 'retryOn', 'x-envoy-retry-on']);
const RATE_LIMITED = 'envoy-ratelimited';

/**
 * @param document one parsed document
 * @param alone    the file may be a pluginConfig by itself
 * @param faults   what the filter says of a pluginConfig
 */
export function findingsIn(document: unknown, alone: boolean, faults: (config: string) => string[]): Found {
  const findings: Finding[] = [];
  let configs = 0;
  const config = (text: string, where: string): void => {
    configs += 1;
    for (const fault of faults(text)) findings.push({ level: 'error', where, text: fault });
  };
  const walk = (value: unknown, where: string, depth: number): void => {
    if (typeof value !== 'object' || value === null || depth > DEPTH_MAX) return;
    const fields = value as Fields;
    const plugin = pluginConfigOf(fields);
    if (plugin !== undefined) config(plugin.text, join(where, plugin.field));
    for (const [name, inner] of Object.entries(fields)) {
      const at = Array.isArray(value) ? `${where}[${name}]` : join(where, name);
      if (RETRY_FIELDS.has(name) && listed(inner).includes(RATE_LIMITED)) findings.push(repeatsRefusals(at));
      walk(inner, at, depth + 1);
    }
  };
  walk(document, '', 0);
  if (configs === 0 && alone && isPluginConfig(document)) config(JSON.stringify(document), '');
  return { findings, configs };
}

const join = (where: string, name: string): string => (where === '' ? name : `${where}.${name}`);

const listed = (value: unknown): string[] =>
  typeof value === 'string' ? value.split(',').map(condition => condition.trim()) : [];

const repeatsRefusals = (where: string): Finding => ({
  level: 'warning',
  where,
  text: `lists ${RATE_LIMITED}: requests that early rollback refuses at the callee are then retried; take it out, or expect num_retries refusals each`,
});

/** Of a WasmPlugin, or of a Wasm filter in Envoy's own configuration, if it is ours. */
function pluginConfigOf(fields: Fields): { text: string; field: string } | undefined {
  const { kind, spec, configuration } = fields;
  if (typeof kind === 'string' && PLUGIN_KINDS.has(kind) && isFields(spec) && isOurs(fields)) {
    return { text: JSON.stringify(spec['pluginConfig'] ?? {}), field: 'spec.pluginConfig' };
  }
  if (!isFields(configuration) || typeof configuration['value'] !== 'string' || !isOurs(fields)) return undefined;
  return { text: configuration['value'], field: 'configuration.value' };
}

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function isOurs({ metadata, spec, name, root_id: root, rootId }: Fields): boolean {
  const plugin = isFields(spec) ? [spec['pluginName'], spec['url']] : [];
  const own = isFields(metadata) ? metadata['name'] : undefined;
  return [own, name, root, rootId, ...plugin].some(text => typeof text === 'string' && text.includes('meshpulse'));
}

/** A JSON object that is neither a Kubernetes object nor a configuration of Envoy. */
function isPluginConfig(document: unknown): boolean {
  const others = ['kind', 'apiVersion', 'static_resources', 'resources', 'items', 'admin'];
  return isFields(document) && !others.some(name => name in document);
}
