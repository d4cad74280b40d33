/** A piece of configuration as it will be written to a JSON file. */
export type Json = { [key: string]: unknown };

/** A protobuf `Any` in JSON: `type` without the `type.googleapis.com/` prefix. */
export function any(type: string, fields: Json = {}): Json {
  return { '@type': `type.googleapis.com/${type}`, ...fields };
}

/** A protobuf duration in JSON. `ms` is a whole number; 0 usually means "no limit" to Envoy. */
export function duration(ms: number): string {
  return `${ms / 1000}s`;
}
