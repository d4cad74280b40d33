/** A strict reader of RFC 9651 dictionaries: integers, decimals, strings, tokens and booleans. */

export type Item =
  | { kind: 'integer' | 'decimal'; value: number }
  | { kind: 'string' | 'token'; value: string }
  | { kind: 'boolean'; value: boolean };

const KEY = /^[a-z*][a-z0-9_\-.*]*/;
const INTEGER = /^-?\d{1,15}(?![\d.])/;
const DECIMAL = /^-?\d{1,12}\.\d{1,3}(?!\d)/;
const STRING = /^"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"/;
const TOKEN = /^[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*/;
const BOOLEAN = /^\?[01]/;

/** @throws SyntaxError when the text is no dictionary */
export function parseDictionary(text: string): Map<string, Item> {
  const members = new Map<string, Item>();
  let rest = text;
  const take = (pattern: RegExp): RegExpExecArray | undefined => {
    const match = pattern.exec(rest) ?? undefined;
    if (match !== undefined) rest = rest.slice(match[0].length);
    return match;
  };
  const fail = (what: string): never => {
    throw new SyntaxError(`${what} at "${rest}" in "${text}"`);
  };
  const item = (): Item => {
    const decimal = take(DECIMAL);
    if (decimal !== undefined) return { kind: 'decimal', value: Number(decimal[0]) };
    const integer = take(INTEGER);
    if (integer !== undefined) return { kind: 'integer', value: Number(integer[0]) };
    const string = take(STRING);
    if (string !== undefined) return { kind: 'string', value: (string[1] ?? '').replace(/\\(["\\])/g, '$1') };
    const token = take(TOKEN);
    if (token !== undefined) return { kind: 'token', value: token[0] };
    const boolean = take(BOOLEAN);
    return boolean === undefined ? fail('no item') : { kind: 'boolean', value: boolean[0] === '?1' };
  };
  for (;;) {
    const key = take(KEY)?.[0] ?? fail('no key');
    members.set(key, take(/^=/) === undefined ? { kind: 'boolean', value: true } : item());
    if (rest === '') return members;
    if (take(/^[ \t]*,[ \t]*/) === undefined) fail('no comma');
  }
}
