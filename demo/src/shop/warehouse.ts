// What stock remembers of its work, for all its instances: which orders have goods set aside.

interface Reservation {
  /** The call's own id, as its sidecar told it: what a signal to undo names. */
  event: string;
}

export class Warehouse {
  private readonly reserved = new Map<string, Reservation>();
  /** Reservations that were given back, by whoever was first. */
  released = 0;
  /** Signals to undo something, of steps with nothing to give back too. */
  signals = 0;

  reserve(order: string, event: string): void {
    this.reserved.set(order, { event });
  }

  /** The goods have left. */
  ship(order: string): void {
    this.reserved.delete(order);
  }

  /** As often as one likes: the second time there is nothing left to give back. */
  release(order: string): void {
    if (this.reserved.delete(order)) this.released++;
  }

  /** What a call with this id set aside, if it did. */
  undo(event: string): void {
    this.signals++;
    for (const [order, reservation] of this.reserved) if (reservation.event === event) this.release(order);
  }

  /** Orders with goods set aside. */
  get open(): number {
    return this.reserved.size;
  }
}
