// What Groundwork adds to PocketBase's JavaScript hooks. In a file of pb_hooks:
//
//   /// <reference path="../pb_data/types.d.ts" />
//   /// <reference path="../pb_data/groundwork.d.ts" />

/**
 * A message and whom it reaches. The fields are those of a record in `notifications`;
 * those that you added there can be declared in an interface of the same name.
 */
interface GroundworkNotification {
  /** The template that says it: its key or id. Instead of title and body. */
  template?: string
  /** What the template's own variables are, such as `{ code: "A1" }` for `{{ code }}`. */
  variables?: Record<string, unknown>

  title?: string
  body?: string
  /** The address of a picture. */
  image?: string
  /** What opens on a tap: an address of the app or of the web. */
  link?: string
  /** What the app gets along with a push. */
  data?: Record<string, unknown>

  /** The category: its key or id. Decides whether it is promotional. */
  category?: string
  channels: Array<"push" | "email" | "sms" | "inbox">

  /** Who gets it. May be left out when users, topics or filter say so. */
  audience?: "users" | "topic" | "filter" | "everyone"
  /** People: records or their ids. */
  users?: string | core.Record | Array<string | core.Record>
  /** Topics: their keys or ids. */
  topics?: string | string[]
  /** A filter over the users collection, such as `plan = "pro"`. */
  filter?: string

  /** When; now if it is left out. */
  sendAt?: Date | string
  /** At that time of everybody's own clock. */
  localTime?: boolean
  /** After it nobody gets it any more. */
  expiresAt?: Date | string
  options?: Record<string, unknown>
  /** Two with the same key are one. */
  idempotencyKey?: string
  /** How many people you expect, when it is everyone or more than 1,000: another number refuses it. */
  confirmRecipients?: number
}

/** The answer of `POST /api/notifications/preview`. */
interface GroundworkPreview {
  people: number
  /** Whether messages are kept instead of sent, as outside production. */
  captured: boolean
  /** How long the slowest channel takes; null when no sender has a rate. */
  seconds: number | null
  channels: Array<{ channel: string; targets: number; people: number; withoutAddress: number; [more: string]: unknown }>
  sample?: { user: string; [more: string]: unknown } | null
}

declare namespace $notifications {
  /**
   * Sends a notification and returns its record, before anybody has got it.
   * In a hook pass `e.app`: inside a transaction it then leaves with the commit, or not at all.
   * Throws a sentence when something is wrong.
   */
  function send(notification: GroundworkNotification, app?: core.App): core.Record

  /**
   * Tells what sending it would do, and sends nothing: how many people and targets on each channel, what an SMS
   * costs, how long it takes at the senders' rates, and the message as `sample` would get it.
   */
  function preview(
    notification: GroundworkNotification & { sample?: string | core.Record; pricePerSegment?: number; currency?: string },
    app?: core.App,
  ): GroundworkPreview

  /** Stops what has not left yet, and returns the record. */
  function cancel(id: string, app?: core.App): core.Record
}
