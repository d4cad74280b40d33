// Who a workload is, where a real Envoy says so: as the collector's own sidecar, and as the caller's.
import { strict as assert } from 'node:assert';
import { credentials, status as Code } from '@grpc/grpc-js';
import { freePort } from '../../demo/src/mesh/address.js';
import { Envoy } from '../../demo/src/mesh/envoy.js';
import { any, type Json } from '../../demo/src/mesh/json.js';
import { bearer, Folder, hashOf, spiffe, tlsClients, type Pair } from '../collector/access/support.js';
import { hello, type Plain } from '../collector/ingest-support.js';
import { Clients, start, type TestCollector } from '../collector/rpc-support.js';

type Failure = Error & { code: number; details: string };

/** Where Istio's sidecars speak to their application from. */
const SIDECAR = '127.0.0.6';

const TLS = 'envoy.extensions.transport_sockets.tls.v3';
const ROUTER = 'envoy.extensions.filters.http.router.v3.Router';
const MANAGER = 'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager';
const HTTP = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';

const filesOf = ({ cert, key }: Pair, ca: Pair): Json => ({
  alpn_protocols: ['h2'],
  tls_certificates: [{ certificate_chain: { filename: cert }, private_key: { filename: key } }],
  validation_context: { trusted_ca: { filename: ca.cert } },
});

/** Takes gRPC on `port` and hands it to `cluster`. */
const listener = (port: number, cluster: string, tls?: Json): Json => ({
  name: cluster,
  address: { socket_address: { address: '127.0.0.1', port_value: port } },
  filter_chains: [
    {
      filters: [
        {
          name: 'http',
          typed_config: {
            ...any(MANAGER),
            stat_prefix: cluster,
            // As Istio has it for what comes in.
            forward_client_cert_details: 'APPEND_FORWARD',
            set_current_client_cert_details: { subject: true, dns: true, uri: true },
            route_config: {
              virtual_hosts: [
                { name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster } }] },
              ],
            },
            http_filters: [{ name: 'router', typed_config: any(ROUTER) }],
          },
        },
      ],
      ...(tls === undefined
        ? {}
        : {
            transport_socket: {
              name: 'tls',
              typed_config: any(`${TLS}.DownstreamTlsContext`, { common_tls_context: tls }),
            },
          }),
    },
  ],
});

const cluster = (name: string, at: string, more: Json): Json => ({
  name,
  load_assignment: {
    cluster_name: name,
    endpoints: [
      {
        lb_endpoints: [
          {
            endpoint: {
              address: { socket_address: { address: at.split(':')[0]!, port_value: Number(at.split(':')[1]) } },
            },
          },
        ],
      },
    ],
  },
  typed_extension_protocol_options: {
    'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': any(HTTP, {
      explicit_http_config: { http2_protocol_options: {} },
    }),
  },
  ...more,
});

describe('identities that Envoy brings', function () {
  this.timeout(90_000);
  const folder = new Folder();
  const clients: Clients[] = [];
  let ca: Pair;
  let behind: TestCollector;
  let direct: TestCollector;
  let envoy: Envoy;
  let sidecar: string;
  let caller: string;

  before(async () => {
    ca = folder.authority('ca');
    const server = folder.certificate('server', ca, 'DNS:localhost,IP:127.0.0.1');
    folder.write(
      'access.yaml',
      `people:\n  - {name: ann, token: ${hashOf('t')}, roles: [operator], namespaces: ['*']}\n`,
    );
    const tokens = ['--token-file', folder.file('access.yaml')];
    behind = await start([...tokens, '--trust-xfcc', SIDECAR]);
    direct = await start([...tokens, '--tls-cert', server.cert, '--tls-key', server.key, '--tls-client-ca', ca.cert]);
    const [inPort, outPort] = [await freePort(), await freePort()];
    [sidecar, caller] = [`127.0.0.1:${inPort}`, `127.0.0.1:${outPort}`];
    const own = folder.certificate('front', ca, `URI:${spiffe('shop', 'front')}`);
    envoy = await Envoy.start({
      name: 'sidecar',
      dir: folder.path,
      adminSocket: folder.file('admin.sock'),
      bootstrap: {
        admin: { address: { pipe: { path: folder.file('admin.sock') } } },
        static_resources: {
          listeners: [listener(inPort, 'behind', filesOf(server, ca)), listener(outPort, 'direct')],
          clusters: [
            cluster('behind', behind.running.grpc, {
              upstream_bind_config: { source_address: { address: SIDECAR, port_value: 0 } },
            }),
            cluster('direct', direct.running.grpc, {
              transport_socket: {
                name: 'tls',
                typed_config: any(`${TLS}.UpstreamTlsContext`, { common_tls_context: filesOf(own, ca) }),
              },
            }),
          ],
        },
      },
    });
    await envoy.ready();
  });
  after(async () => {
    for (const one of clients) one.close();
    await envoy.stop();
    await Promise.all([behind.stop(), direct.stop()]);
    folder.remove();
  });

  /** By way of the sidecar. */
  function through(own: Pair | undefined, sent: Record<string, string> = {}): Clients {
    const made = tlsClients(sidecar, ca, own, sent);
    clients.push(made);
    return made;
  }

  function plain(address: string, sent: Record<string, string> = {}): Clients {
    const made = new Clients(address, credentials.createInsecure(), sent);
    clients.push(made);
    return made;
  }

  const report = (from: Clients, extra: Plain = {}): Promise<Plain> =>
    from.call('Ingest.ReportOnce', { hello: hello(extra) });
  const failure = (call: Promise<unknown>): Promise<Failure> =>
    call.then(
      () => assert.fail('it was answered'),
      (error: unknown) => error as Failure,
    );
  const forged = { 'x-forwarded-client-cert': `By=x;Hash=00;Subject="";URI=${spiffe('shop')}` };

  it('are those of the certificate that the sidecar saw', async () => {
    await report(through(folder.certificate('pay', ca, `URI:${spiffe('shop', 'pay')}`)));
    const life = await plain(behind.running.grpc, bearer('t')).call('Registry.ListServices', {});
    assert.deepEqual(
      (life['services'] as Plain[]).map(({ name }) => name),
      ['payment.shop'],
    );
  });

  it('are not those of a header that came along', async () => {
    const bank = through(folder.certificate('bank', ca, `URI:${spiffe('bank')}`), forged);
    const { code, details } = await failure(report(bank));
    assert.deepEqual(
      [code, details.includes(`${spiffe('bank')} may report bank only`)],
      [Code.PERMISSION_DENIED, true],
      details,
    );
  });

  it('are nobody without a certificate, whatever the header says', async () => {
    const { code, details } = await failure(report(through(undefined, forged)));
    assert.deepEqual([code, details.startsWith('nothing says who you are')], [Code.UNAUTHENTICATED, true], details);
  });

  it('are not taken from who goes past the sidecar', async () => {
    const { code, details } = await failure(report(plain(behind.running.grpc, forged)));
    assert.deepEqual([code, /is not taken from 127\.0\.0\.1/.test(details)], [Code.UNAUTHENTICATED, true], details);
  });

  it('of people come through by their token', async () => {
    await through(undefined, bearer('t')).call('Registry.ListServices', {});
  });

  it('are shown by a sidecar to a collector with TLS of its own', async () => {
    const stream = plain(caller).report();
    await stream.ask({ hello: hello() });
    stream.send({ hello: hello({ service: 'ledger.bank' }) });
    const { code, details } = await stream.ended;
    assert.deepEqual(
      [code, details.includes(`${spiffe('shop', 'front')} may report shop only`)],
      [Code.PERMISSION_DENIED, true],
      details,
    );
  });
});
