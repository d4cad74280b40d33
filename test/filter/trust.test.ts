/** Who may say what: own headers from strangers, copies that applications forward, gateways, external clusters. */
import assert from 'node:assert/strict';
import type { Exchange, Pair, PropertyTree } from '../support/proxy-wasm-host.js';
import { application, OWN_HEADERS, own, ownBytes } from './headers.js';
import type { Sidecar } from './sidecar.js';
import { COLLECTOR_CLUSTER, PEER_CUID, TRACEPARENT } from './sidecar.js';
import { sidecars } from './suite.js';
import { RowFlag } from './wire.js';

const SPOOFED: readonly Pair[] = [
  ['x-cuid', PEER_CUID],
  ['x-mp-status', 'inflight=0, queue=0'],
  ['x-mp-progress', 'event="00000000000000aa", job="x", done=1'],
  ['x-mp-rollback', 'signal-1'],
];
const TWINS: readonly Pair[] = [
  ['x_cuid', PEER_CUID],
  ['x-mp_status', 'inflight=0'],
  ['x_mp-progress', 'event="00000000000000aa"'],
  ['x_mp_rollback', 's'],
];
const UNTRUSTED: PropertyTree = { connection: { mtls: false } };

function inner(headers: readonly Pair[]): Pair[] {
  return [['x-app-first', '1'], ...headers, ['x-app-last', '2']];
}

describe('trust', () => {
  const start = sidecars(false);

  const cluster = (name: string, extra: PropertyTree = {}): PropertyTree => ({ xds: { cluster_name: name, ...extra } });

  describe('inbound requests', () => {
    it('drops own headers of a peer without mTLS identity, and nothing else', () => {
      const exchange = start().serve({ headers: inner([...SPOOFED, ...TWINS]), properties: UNTRUSTED });
      assert.deepEqual(own(exchange.request.pairs()), []);
      assert.deepEqual(application(exchange.request.pairs()).slice(-2), [
        ['x-app-first', '1'],
        ['x-app-last', '2'],
      ]);
    });

    it('passes own headers of an mTLS peer', () => {
      const exchange = start().serve({ headers: inner(SPOOFED) });
      assert.deepEqual(own(exchange.request.pairs()), SPOOFED);
    });

    it('drops duplicates and twins with `_` even from an mTLS peer', () => {
      const exchange = start().serve({
        headers: inner([...SPOOFED, ...TWINS, ['x-cuid', 'second'], ['X-MP-Status', 'third']]),
      });
      const names = own(exchange.request.pairs()).map(([name]) => name);
      assert.equal(new Set(names).size, names.length, names.join());
      assert.deepEqual(
        names.filter(name => !OWN_HEADERS.includes(name)),
        [],
      );
    });

    it('trusts everyone with `trust: all`', () => {
      const exchange = start({ config: { trust: 'all' } }).serve({ headers: inner(SPOOFED), properties: UNTRUSTED });
      assert.deepEqual(own(exchange.request.pairs()), SPOOFED);
    });

    it('treats a connection that does not say as untrusted', () => {
      const sidecar = start();
      sidecar.proxy.faults.set({ call: 'proxy_get_property', status: 1 });
      assert.deepEqual(own(sidecar.serve({ headers: SPOOFED }).request.pairs()), []);
    });

    it('believes CUID and event id of a trusted peer only: the others begin a transaction', () => {
      const sidecar = start();
      sidecar.connect();
      sidecar.serve({ headers: SPOOFED });
      sidecar.serve({ headers: SPOOFED, properties: UNTRUSTED });
      sidecar.advance(2500);
      const [trusted, stranger] = sidecar.collector.rows();
      assert.deepEqual([trusted?.peerCuid, trusted?.event], [PEER_CUID, '00000000000000aa']);
      assert.equal((trusted?.flags ?? 0) & RowFlag.Entry, 0);
      assert.equal(stranger?.peerCuid, '');
      assert.notEqual(stranger.event, '00000000000000aa');
      assert.equal(stranger.flags & RowFlag.Entry, RowFlag.Entry);
    });

    it('drops own headers one by one when the header map cannot be read whole', () => {
      const sidecar = start();
      sidecar.proxy.faults.set({ call: 'proxy_get_header_map_pairs', status: 10 });
      const exchange = sidecar.serve({ headers: inner(SPOOFED), properties: UNTRUSTED });
      assert.deepEqual(own(exchange.request.pairs()), []);
      assert.deepEqual(exchange.request.pairs().slice(-2), inner([]));
    });
  });

  describe('responses of the own application', () => {
    const answerTo = (properties: PropertyTree, headers: readonly Pair[], config = {}): Exchange => {
      const exchange = start({ config }).receive({ properties });
      exchange.requestHeaders();
      exchange.responseHeaders([[':status', '200'], ...headers]);
      return exchange;
    };
    const value = (exchange: Exchange, name: string): string[] => exchange.response?.all(name) ?? [];

    it('are stamped for an in-mesh peer: CUID and status', () => {
      const exchange = answerTo({}, inner([]));
      assert.match(
        value(exchange, 'x-cuid')[0] ?? '',
        /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
      );
      assert.match(value(exchange, 'x-mp-status')[0] ?? '', /^inflight=1\b/);
      assert.deepEqual(application(exchange.response?.pairs() ?? []), [[':status', '200'], ...inner([])]);
    });

    it('tell a stranger nothing, not even what the application set', () => {
      const exchange = answerTo(UNTRUSTED, inner([...SPOOFED, ...TWINS]));
      assert.deepEqual(exchange.response?.pairs(), [[':status', '200'], ...inner([])]);
    });

    it('cannot speak for the proxy: the application keeps its progress alone', () => {
      const exchange = answerTo({}, [
        ['x-cuid', PEER_CUID],
        ['x-mp-status', 'inflight=999'],
        ['x-mp-progress', 'job="j", done=1, of=2'],
      ]);
      assert.notEqual(value(exchange, 'x-cuid')[0], PEER_CUID);
      assert.equal(value(exchange, 'x-cuid').length, 1);
      assert.doesNotMatch(value(exchange, 'x-mp-status').join(), /999/);
      assert.match(value(exchange, 'x-mp-progress')[0] ?? '', /job="j"/);
    });

    it('drop an invalid x-mp-progress of the application', () => {
      assert.deepEqual(value(answerTo({}, [['x-mp-progress', 'done=many, ,']]), 'x-mp-progress'), []);
    });

    it('carry no status with status.response off, but the CUID', () => {
      const exchange = answerTo({}, [], { status: { response: false } });
      assert.equal(value(exchange, 'x-cuid').length, 1);
      assert.equal(value(exchange, 'x-mp-status').length, 0);
    });

    it('stay under 256 bytes with what the application says of its job', () => {
      const job = 'j'.repeat(120);
      for (const length of [1, 40, 64])
        for (const response of [true, false]) {
          const headers: Pair[] = [
            ['x-mp-progress', `job="${job}", done=1, of=2, state=packing`],
            ['x-mp-rollback', 's'.repeat(length)],
          ];
          const exchange = answerTo({}, headers, { status: { response } });
          assert.ok(ownBytes(exchange.response?.pairs() ?? []) < 256);
          assert.equal(value(exchange, 'x-mp-rollback').length, 1);
        }
    });

    it('lose own headers one by one when the header map cannot be read whole', () => {
      const sidecar = start();
      const exchange = sidecar.call();
      exchange.requestHeaders();
      sidecar.proxy.faults.set({ call: 'proxy_get_header_map_pairs', status: 10 });
      exchange.responseHeaders([[':status', '200'], ...inner([...SPOOFED, ...TWINS])]);
      assert.deepEqual(exchange.response?.pairs(), [[':status', '200'], ...inner([])]);
    });

    it('carry ORCA for balancers when status.orca is on and the application sent none', () => {
      const config = { status: { orca: true } };
      assert.match(
        value(answerTo({}, [], config), 'endpoint-load-metrics')[0] ?? '',
        /^TEXT named_metrics\.inflight=1$/,
      );
      assert.deepEqual(
        value(answerTo({}, [['endpoint-load-metrics', 'TEXT eps=1']], config), 'endpoint-load-metrics'),
        ['TEXT eps=1'],
      );
      assert.deepEqual(value(answerTo({}, []), 'endpoint-load-metrics'), []);
    });
  });

  describe('outbound requests', () => {
    const EXTERNAL: readonly (readonly [string, PropertyTree])[] = [
      ['PassthroughCluster', cluster('PassthroughCluster')],
      ['BlackHoleCluster', cluster('BlackHoleCluster')],
      ['InternalPassthrough', cluster('InboundPassthroughCluster')],
      ['a plain cluster without mesh.clusters', cluster('pay')],
      ['no cluster at all', { xds: { cluster_name: () => undefined } }],
      [
        'a cluster marked external',
        cluster('outbound|443||api.example.com', {
          cluster_metadata: { filter_metadata: { istio: { external: true } } },
        }),
      ],
    ];
    for (const [name, properties] of EXTERNAL) {
      it(`are not stamped towards ${name}, and lose the copies an application forwards`, () => {
        const sidecar = start();
        const exchange = sidecar.callOut({ headers: inner([...SPOOFED, ...TWINS]), properties });
        assert.deepEqual(own(exchange.request.pairs()), []);
        assert.deepEqual(application(exchange.request.pairs()).slice(-2), inner([]));
      });
    }

    it('are stamped towards an in-mesh cluster, with copies replaced', () => {
      const exchange = start().callOut({ headers: inner([...SPOOFED, ...TWINS]) });
      const after = exchange.request.pairs();
      assert.deepEqual(
        own(after)
          .map(([name]) => name)
          .toSorted(),
        [...OWN_HEADERS].toSorted(),
      );
      assert.notEqual(exchange.request.get('x-cuid'), PEER_CUID);
      assert.doesNotMatch(exchange.request.get('x-mp-progress') ?? '', /00000000000000aa/);
      assert.match(exchange.request.get('x-mp-progress') ?? '', /job="x", done=1/);
      assert.equal(exchange.request.get('x-mp-rollback'), 'signal-1');
      assert.ok(ownBytes(after) < 256, String(ownBytes(after)));
    });

    it('drop a rollback mark longer than 64 bytes', () => {
      const exchange = start().callOut({ headers: [['x-mp-rollback', 'r'.repeat(65)]] });
      assert.equal(exchange.request.get('x-mp-rollback'), undefined);
    });

    it('follow mesh.clusters on plain Envoy', () => {
      const sidecar = start({ config: { mesh: { clusters: ['pay', 'stock-*'] } } });
      const stamped = (name: string): boolean =>
        sidecar.callOut({ properties: cluster(name) }).request.get('x-cuid') !== undefined;
      assert.deepEqual(['pay', 'stock-1', 'pay2', 'mail', 'outbound|80||x.y'].map(stamped), [
        true,
        true,
        false,
        false,
        false,
      ]);
    });

    it('follow mesh.clusters of a newer configuration in the same VM', () => {
      const sidecar = start({ config: { mesh: { clusters: ['pay'] } } });
      const probe = (): boolean => sidecar.callOut({ properties: cluster('pay') }).request.get('x-cuid') !== undefined;
      assert.equal(probe(), true);
      const configuration = JSON.stringify({
        collector: { cluster: COLLECTOR_CLUSTER },
        mesh: { clusters: ['stock'] },
      });
      const next = sidecar.proxy.addPlugin({
        name: 'meshpulse-out-2',
        rootId: 'meshpulse',
        configuration,
        properties: sidecar.outbound.properties,
      });
      const exchange = sidecar.proxy.exchange(0, next, {
        headers: [
          [':authority', 'pay'],
          [':path', '/'],
          [':method', 'GET'],
        ],
        properties: { xds: { cluster_name: 'pay', listener_direction: 2 } },
      });
      exchange.requestHeaders();
      assert.equal(exchange.request.get('x-cuid'), undefined);
    });

    /** Of a workload without a proxy in an in-mesh cluster: nothing vouches for it. */
    const NO_CERTIFICATE: PropertyTree = { upstream: { uri_san_peer_certificate: '', subject_peer_certificate: '' } };

    it('pass the callee’s own headers to the application, but no stranger’s', () => {
      const reply = (properties: PropertyTree, config = {}): Pair[] =>
        own(start({ config }).callOut({ properties }, { headers: SPOOFED }).response?.pairs() ?? []);
      assert.equal(reply({})[0]?.[1], PEER_CUID);
      assert.deepEqual(reply(cluster('PassthroughCluster')), []);
      assert.deepEqual(reply(NO_CERTIFICATE), []);
      assert.equal(reply(NO_CERTIFICATE, { trust: 'all' })[0]?.[1], PEER_CUID);
    });

    it('drop duplicates and twins of own headers in responses, whoever sent them', () => {
      const exchange = start().callOut({}, { headers: inner([...SPOOFED, ...TWINS, ['x-cuid', 'second']]) });
      const names = own(exchange.response?.pairs() ?? []).map(([name]) => name);
      assert.deepEqual(names.toSorted(), [...OWN_HEADERS].toSorted());
    });

    it('give the event row the callee’s CUID as peer', () => {
      const sidecar = start();
      sidecar.connect();
      sidecar.callOut({}, { headers: SPOOFED });
      sidecar.callOut({ properties: cluster('PassthroughCluster') }, { headers: SPOOFED });
      sidecar.advance(2500);
      const [mesh, outside] = sidecar.collector.rows();
      assert.deepEqual([mesh?.peerCuid, mesh?.peerService], [PEER_CUID, 'pay.shop.svc.cluster.local']);
      assert.equal((mesh?.flags ?? 0) & RowFlag.External, 0);
      assert.equal(outside?.peerCuid, '');
      assert.equal(outside.flags & RowFlag.External, RowFlag.External);
    });
  });

  describe('the edge', () => {
    const gateway = (config: object): Sidecar =>
      start({ config: { edge: true, ...config }, node: { id: 'router~10.0.0.1~gw-1.edge~edge.svc.cluster.local' } });

    it('drops incoming own headers, mTLS or not, stamps its own, and removes outgoing ones', () => {
      const sidecar = gateway({});
      for (const mtls of [true, false]) {
        const exchange = sidecar.callOut(
          { headers: inner(SPOOFED), properties: { connection: { mtls } } },
          { headers: inner([...SPOOFED, ...TWINS]) },
        );
        assert.notEqual(exchange.request.get('x-cuid'), PEER_CUID);
        assert.equal(exchange.request.get('x-mp-rollback'), undefined);
        assert.deepEqual(exchange.response?.pairs(), [[':status', '200'], ...inner([])]);
      }
    });

    it('counts a request as entry event and as call', () => {
      const sidecar = gateway({});
      sidecar.connect();
      sidecar.callOut({ headers: [['traceparent', TRACEPARENT], ...SPOOFED] }, { headers: SPOOFED });
      sidecar.advance(2500);
      const rows = sidecar.collector.rows();
      assert.equal(rows.length, 2);
      const [event, call] = rows.toSorted((a, b) => (a.flags & RowFlag.Call) - (b.flags & RowFlag.Call));
      assert.equal((event?.flags ?? 0) & RowFlag.Entry, RowFlag.Entry);
      assert.equal(event?.peerCuid, '');
      assert.equal((call?.flags ?? 0) & (RowFlag.Call | RowFlag.Entry), RowFlag.Call);
      assert.equal(call?.peerCuid, PEER_CUID);
    });

    it('counts an unreadable `edge` as true on router proxies, and as false on sidecars', () => {
      const kept = (id: string): Pair[] => {
        const sidecar = start({ config: { edge: 'maybe' }, node: { id } });
        return own(sidecar.serve({ headers: SPOOFED }).request.pairs());
      };
      assert.deepEqual(kept('router~10.0.0.1~gw-1.edge~edge.svc'), []);
      assert.deepEqual(kept('sidecar~10.0.0.7~shop-1.shop~shop.svc'), SPOOFED);
    });

    it('stays clean when its pluginConfig is unreadable', () => {
      const sidecar = start({ config: null, node: { id: 'router~10.0.0.1~gw-1.edge~edge.svc' } });
      const broken = sidecar.proxy.addPlugin({
        name: 'broken',
        configuration: '{"edge": tru',
        properties: sidecar.outbound.properties,
      });
      const exchange = sidecar.proxy.exchange(0, broken, {
        headers: [[':method', 'GET'], [':path', '/'], [':authority', 'a'], ...SPOOFED],
      });
      exchange.requestHeaders();
      assert.deepEqual(own(exchange.request.pairs()), []);
    });
  });

  it('answers paths of its own from the network with 404', () => {
    const sidecar = start({ config: { rollback: { callback: { cluster: 'app', path: '/undo' } } } });
    const answerOf = (path: string): number | undefined => {
      const exchange = sidecar.receive({
        rawHeaders: [
          [':authority', 'a'],
          [':path', path],
          [':method', 'POST'],
        ],
      });
      exchange.requestHeaders();
      exchange.finish();
      return exchange.localReply?.code;
    };
    // prettier-ignore
    const closed = [
      '/.well-known/meshpulse/progress', '/.well-known/meshpulse/x', '/undo', '/undo?x=1', '/undo#x', '/undo/', '//undo',
      '/./undo', '/a/../undo', '/a/b/../../undo', '/../undo', '/UNDO', '/Undo;v=1', '/;x/undo', '/%75ndo', '/%2575ndo', '/und%6F',
      '/%2e/undo', '/a/%2e%2e/undo', '/%2fundo', '\\undo', '/a\\..\\undo', '/undo%3fx', '/undo%00', '/undo%23', '/undo/.', '/undo/x/..',
      '//a/undo', '\\\\a/undo', '///a:1//undo', '/%2fa/undo', '//a/b/../undo',
    ];
    for (const path of closed) {
      assert.equal(answerOf(path), 404, path);
    }
    for (const path of [
      '/undone',
      '/',
      '',
      '*',
      '/un',
      '/undo/x',
      '/undo.',
      '/x/undo',
      '/undo%',
      '/%zzundo',
      '/a/undo/b',
    ])
      assert.equal(answerOf(path), undefined, path);
    sidecar.connect();
    sidecar.advance(3000);
    assert.equal(sidecar.collector.rows().length, closed.length + 11, 'a stranger’s attempt is a request');
  });
});
