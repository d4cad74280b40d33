// The process of a fleet: told its plan, then asked for figures, by messages of its parent.

import { Fleet, type FleetFigures, type FleetPlan } from './fleet.js';

export type Order = { readonly plan: FleetPlan } | 'figures' | 'no more';

let fleet: Fleet | undefined;

process.on('message', (order: Order) => {
  if (order === 'figures') return process.send!(fleet!.figures());
  if (order === 'no more') fleet!.more = false;
  else fleet = new Fleet(order.plan);
  return process.send!(fleet!.figures());
});
process.on('disconnect', () => process.exit(0));

export type { FleetFigures };
