/// <reference path="types.d.ts" />
// What Groundwork adds to PocketBase's JavaScript hooks. In a file of pb_hooks:
//
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
  /** Whoever has not opened the push by then, or got none because of the device, gets one SMS. */
  smsAfterMinutes?: number
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

/** A job, as its handler gets it. */
interface GroundworkJob<Args = any> {
  /** 15 random characters. */
  id: string
  kind: string
  /** What the job was enqueued with. */
  args: Args
  queue: string
  /** 1 on the first run. */
  attempt: number
  maxAttempts: number
  /** The id of the request that led to the job; empty when there was none. */
  requestId: string

  /** Gives the job up for good; the reason is shown in the job monitor. Ends the handler. */
  cancel(reason: string): never
  /** Runs the job again after so many seconds, without counting an attempt. Ends the handler. */
  snooze(seconds: number): never
}

interface GroundworkJobOptions {
  /** "default" if it is left out; "bulk" for much work that may take long. */
  queue?: "critical" | "default" | "bulk" | "maintenance"
  /** Not before; now if it is left out. */
  runAt?: Date | string
  /** While a job of this kind and key is not finished, another one is not added; the id that it got is then nobody's (404). */
  uniqueKey?: string
  /** 1 (first) to 4 (last) in its queue; 2 if it is left out. */
  priority?: 1 | 2 | 3 | 4
  /** After so many failed attempts the job is given up; 25 if it is left out. */
  maxAttempts?: number
  /** Who may read the result at `GET /api/jobs/{id}`, such as `e.auth`; else only superusers. */
  owner?: core.Record
}

declare namespace $jobs {
  /**
   * Adds a job and returns its id.
   * In a hook pass `e.app`: inside a transaction the job is added with the commit, or not at all.
   * The arguments are kept as JSON (at most 1 MB) and can be read in the job monitor: no passwords in them.
   */
  function enqueue(kind: string, args: unknown, options?: GroundworkJobOptions, app?: core.App): string

  /**
   * Says what does the jobs of a kind. Only at the top level of a file in `pb_hooks`. As with PocketBase's own hooks the
   * function stands for itself: what it needs it loads with `require`.
   * What it returns is the result. When it throws, it is tried again later, longer apart each time. It may run twice for one
   * job, after a crash, so let it look whether its work is done. It has a minute; a loop that takes longer is stopped.
   */
  function on<Args = any>(kind: string, handler: (job: GroundworkJob<Args>) => unknown): void
}
