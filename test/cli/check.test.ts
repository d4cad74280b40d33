/** `meshpulse check`: the filter's own sentences about settings, before they are applied. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { meshpulse, ROOT, type Ran } from './support.js';

const WASM_PLUGIN = (config: string): string => `apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: pulse, namespace: istio-system}
spec:
  pluginName: meshpulse
  pluginConfig: ${config}
`;
const ENVOY = (config: string, retryOn: string): string =>
  JSON.stringify({
    static_resources: {
      listeners: [
        {
          http_filters: [
            { typed_config: { config: { root_id: 'meshpulse', configuration: { value: config } } } },
            { typed_config: { config: { root_id: 'another', configuration: { value: '{"role":"both"}' } } } },
          ],
          routes: [{ route: { retry_policy: { retry_on: retryOn } } }],
        },
      ],
    },
  });
const VIRTUAL_SERVICE = `kind: VirtualService
spec:
  http:
    - retries: {attempts: 2, retryOn: "5xx, envoy-ratelimited"}
`;

describe('meshpulse check', function () {
  this.timeout(30_000);
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'meshpulse-check-'));
  });
  after(() => rm(folder, { recursive: true }));

  const check = async (name: string, text: string, ...more: string[]): Promise<Ran> => {
    const file = join(folder, name);
    await writeFile(file, text);
    return meshpulse(['check', file, ...more]);
  };

  for (const [name, text] of [
    ['wasmplugin.yaml', WASM_PLUGIN('{rollback: {mode: enforc}}')],
    ['envoy.json', ENVOY('{"rollback":{"mode":"enforc"}}', '5xx')],
    ['alone.json', '{"rollback.mode": "enforc"}'],
  ] as const) {
    it(`finds the filter's settings in ${name}, and says what the filter says`, async () => {
      const { code, out, err } = await check(name, text);
      assert.equal(code, 1);
      assert.match(out, /error +(?:[\w.[\]]+: )?rollback\.mode\b.*enforc\b.*off, observe/);
      assert.equal(err, '1 file, 1 configuration of the filter, 1 error, 0 warnings\n');
    });
  }

  it('says what is unreadable, and what is no YAML at all', async () => {
    assert.match((await check('torn.json', ENVOY('{"rollback":', '5xx'))).out, /error .*pluginConfig/);
    const broken = await check('broken.yaml', 'a: [1, 2\nb: {');
    assert.equal(broken.code, 1);
    assert.match(broken.out, /error {3} /);
    const levels = Array.from(
      { length: 12 },
      (_, i) => `l${i + 1}: &l${i + 1} [${Array(9).fill(`*l${i}`).join(', ')}]`,
    );
    const bomb = await check('bomb.yaml', `l0: &l0 [x]\n${levels.join('\n')}\n`);
    assert.equal(bomb.code, 1);
    assert.match(bomb.out, /error {4}.*alias/);
  });

  it('warns of retries that repeat what early rollback refuses', async () => {
    const { code, out } = await check('routes.yaml', VIRTUAL_SERVICE);
    assert.equal(code, 0);
    assert.match(out, /warning {2}spec\.http\[0\]\.retries\.retryOn: lists envoy-ratelimited: .*take it out/);
    const envoy = await check('routes.json', ENVOY('{}', 'reset,envoy-ratelimited'), '-o', 'json');
    const [file] = JSON.parse(envoy.out) as { findings: { level: string; where: string }[] }[];
    assert.deepEqual(
      file?.findings.map(({ level, where }) => [level, where.split('.').slice(-2).join('.')]),
      [['warning', 'retry_policy.retry_on']],
    );
    assert.equal((await check('other.yaml', VIRTUAL_SERVICE.replace('envoy-ratelimited', 'reset'))).out, '');
  });

  it('looks through folders, and finds nothing wrong with what the project ships', async () => {
    const { code, out, err } = await meshpulse(['check', join(ROOT, 'istio')]);
    assert.equal(code, 0, out);
    assert.match(err, /^[2-9] files, [2-9] configurations of the filter, 0 errors, 0 warnings\n$/);
    await mkdir(join(folder, 'deep'), { recursive: true });
    assert.equal((await check(join('deep', 'x.yaml'), WASM_PLUGIN('{service: 7}'))).code, 1);
    assert.match((await meshpulse(['check', folder])).out, /deep\/x\.yaml\n {2}error/);
  });

  it('says what is not there', async () => {
    const { code, err } = await meshpulse(['check', join(folder, 'missing.yaml')]);
    assert.equal(code, 2);
    assert.match(err, /<path> is ".*missing\.yaml", which is not there/);
  });
});
