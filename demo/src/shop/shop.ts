// The sample shop: which services there are, on which proxies, and what runs behind them.
import type { Address, Subnet } from '../mesh/address.js';
import { App, type Handler } from '../mesh/app.js';
import { FILTER_WASM } from '../mesh/envoy.js';
import type { FilterSettings } from '../mesh/http-filters.js';
import { Mesh, type Proxy } from '../mesh/mesh.js';
import { TraceSink } from '../mesh/trace-sink.js';
import {
  BANK,
  bankApp,
  InvoiceConsumer,
  mailApp,
  paymentApp,
  shopApp,
  stockApp,
  UNDO_PATH,
  type Faults,
} from './apps.js';
import { Warehouse } from './warehouse.js';
import { Waste } from './waste.js';

export const NAMESPACE = 'store';
/** Services with two instances each, in the order of a request. */
export const SERVICES = ['gateway', 'shop', 'payment', 'stock', 'mail'];
export const CONSUMER = 'invoices';

export interface ShopOptions {
  /** Several replicas have every other sidecar each. */
  collector: Address | readonly Address[];
  subnet?: Subnet;
}

/** The headers of one request as an application saw them. */
export type SeenHeaders = [string, string][];

/** The filter's settings. How far early rollback goes is the policy's to say. */
function settings(callback?: { cluster: string; path: string }): FilterSettings {
  return { report: { plainIds: true }, rollback: { mode: 'enforce', ...(callback ? { callback } : {}) } };
}

export class Shop {
  readonly faults: Faults = { paymentBroken: false };
  readonly waste = new Waste();
  readonly warehouse = new Warehouse();
  /** The latest request at each service. */
  readonly seen = new Map<string, SeenHeaders>();
  private readonly apps = new Map<string, App>();
  private bank: App | undefined;
  consumer: InvoiceConsumer | undefined;

  private constructor(
    readonly mesh: Mesh,
    private readonly sink: TraceSink,
    private readonly bankAddress: Address,
  ) {}

  static async create(options: ShopOptions): Promise<Shop> {
    const sink = await TraceSink.start();
    const two = { instances: 2 };
    const bankAddress = { host: `${options.subnet?.prefix ?? '127.0'}.5.1`, port: 8443 };
    const mesh = await Mesh.create({
      namespace: NAMESPACE,
      collector: options.collector,
      ...(options.subnet ? { subnet: options.subnet } : {}),
      externals: [{ host: BANK, address: bankAddress }],
      services: [
        { name: 'gateway', gatewayTo: 'shop', ...two },
        { name: 'shop', ...two },
        // Charging twice is safe here, so the proxies may repeat it once.
        {
          name: 'payment',
          ...two,
          policy: { retries: { on: 'connect-failure,retriable-status-codes', statusCodes: [503], attempts: 1 } },
        },
        { name: 'stock', ...two, proxy: { settings: settings({ cluster: 'inbound|8080||', path: UNDO_PATH }) } },
        { name: 'mail', ...two },
        { name: CONSUMER, outboundOnly: true },
      ],
      proxy: {
        wasm: { file: FILTER_WASM },
        // Envoy's own tracing puts the trace context last: the order is shown where it is hard to have.
        tracing: { provider: 'opentelemetry', sink: sink.address },
        settings: settings(),
      },
    });
    return new Shop(mesh, sink, bankAddress);
  }

  /** Applications first, so that no proxy meets a closed port. */
  async start(): Promise<void> {
    this.bank = await App.start(this.bankAddress, undefined, bankApp());
    const withApp = this.mesh.proxies.filter(proxy => !proxy.spec.gatewayTo && proxy.spec.name !== CONSUMER);
    await Promise.all(withApp.map(proxy => this.startApp(proxy)));
    await this.mesh.start();
    this.consumer = new InvoiceConsumer(this.mesh.proxy(CONSUMER).outbound);
  }

  /** Ends a container without losing a request, and starts another on the same address. */
  async replace(proxy: Proxy): Promise<void> {
    await proxy.stopGracefully();
    await this.apps.get(proxy.ip)?.stop();
    await this.startApp(proxy);
    await proxy.startNewLife();
  }

  async stop(): Promise<void> {
    this.consumer?.stop();
    await Promise.all([...this.apps.values(), ...(this.bank ? [this.bank] : [])].map(app => app.stop()));
    await this.mesh.stop('kill');
    await this.sink.stop();
  }

  private async startApp(proxy: Proxy): Promise<void> {
    const { name } = proxy.spec;
    const handler = this.handlerOf(name);
    const app = await App.start(proxy.app, proxy.outbound, request => {
      this.seen.set(name, request.rawHeaders);
      return this.waste.watch(name, request, () => handler(request));
    });
    this.apps.set(proxy.ip, app);
  }

  private handlerOf(service: string): Handler {
    switch (service) {
      case 'shop':
        return shopApp(this.waste);
      case 'payment':
        return paymentApp(this.faults, this.waste);
      case 'stock':
        return stockApp(this.warehouse);
      case 'mail':
        return mailApp();
      default:
        throw new Error(`no application for ${service}`);
    }
  }
}
