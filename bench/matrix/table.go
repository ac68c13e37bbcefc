package main

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
	"github.com/groundworkhq/groundwork/internal/versions"
	"github.com/groundworkhq/groundwork/notifications"
)

// who asks, in the order of the columns. The owner is the person whom the record is
// about; other is another person who is signed in; revoked is a token whose session
// was ended.
var who = []string{"guest", "other", "owner", "superuser", "revoked"}

// answers are one for each column: an HTTP status; for a list with + when the record
// is in it and - when it is not.
type answers [5]string

// Answers that are the same for many.
var (
	// superusersOnly is a record or route of ours that only superusers have.
	superusersOnly = func(superuser string) answers { return answers{"401", "403", "403", superuser, "401"} }
	// hidden is one that a rule hides from everybody but its owner and superusers.
	hidden = func(guest, other, owner, superuser string) answers {
		return answers{guest, other, owner, superuser, "401"}
	}
	// everybody is the same for all, whatever their token is worth.
	everybody = func(status string) answers { return answers{status, status, status, status, status} }
)

// collection is what the records API of one collection answers.
type collection struct {
	list, view, create, update, delete answers

	// seed is a record that is about the owner, as far as its kind is about anybody.
	seed func(in *installation, owner *core.Record) (*core.Record, error)
	// body is what to create; nil sends what a seed would have.
	body func(in *installation, owner *core.Record) map[string]any
	// change is what an update sends.
	change map[string]any
}

func closed() collection {
	return collection{
		list: superusersOnly("200 +"), view: superusersOnly("200"), create: superusersOnly("200"), update: superusersOnly("200"), delete: superusersOnly("204"),
	}
}

func (c collection) with(seed func(in *installation, owner *core.Record) (*core.Record, error), body func(in *installation, owner *core.Record) map[string]any, change map[string]any) collection {
	c.seed, c.body, c.change = seed, body, change
	return c
}

// fields makes a seed of a collection from what is sent to create one.
func fields(collection string, make func(in *installation, owner *core.Record) map[string]any) (func(*installation, *core.Record) (*core.Record, error), func(*installation, *core.Record) map[string]any) {
	return func(in *installation, owner *core.Record) (*core.Record, error) {
		return in.insert(collection, make(in, owner))
	}, make
}

func same(v map[string]any) func(*installation, *core.Record) map[string]any {
	return func(*installation, *core.Record) map[string]any {
		out := map[string]any{}
		for k, value := range v {
			if format, ok := value.(unique); ok {
				value = fmt.Sprintf(string(format), word())
			}
			out[k] = value
		}
		return out
	}
}

// unique is a format for a text that no other record has.
type unique string

// owners adds the owner's id.
func owners(field string, v map[string]any) func(*installation, *core.Record) map[string]any {
	rest := same(v)
	return func(in *installation, owner *core.Record) map[string]any {
		out := rest(in, owner)
		out[field] = owner.Id
		return out
	}
}

// refs are the fields of PocketBase's own records about an account.
func refs(v map[string]any) func(*installation, *core.Record) map[string]any {
	rest := same(v)
	return func(in *installation, owner *core.Record) map[string]any {
		out := rest(in, owner)
		out["collectionRef"], out["recordRef"] = owner.Collection().Id, owner.Id
		return out
	}
}

func table() map[string]collection {
	all := map[string]collection{}
	add := func(id string, c collection, make func(*installation, *core.Record) map[string]any, change map[string]any) {
		seed, body := fields(id, make)
		all[id] = c.with(seed, body, change)
	}

	// PocketBase's own. A record that only superusers have is 403 there, for guests
	// too: the 401 is for ours.
	theirs := collection{list: answers{"403", "403", "403", "200 +", "401"}, view: answers{"403", "403", "403", "200", "401"},
		create: answers{"403", "403", "403", "200", "401"}, update: answers{"403", "403", "403", "200", "401"}, delete: answers{"403", "403", "403", "204", "401"}}
	seen := theirs
	seen.list, seen.view = hidden("200 -", "200 -", "200 +", "200 +"), hidden("404", "404", "200", "200")
	add("_superusers", collection{
		list: hidden("403", "403", "403", "200 +"), view: hidden("403", "403", "403", "200"), update: hidden("403", "403", "403", "200"),
		delete: hidden("403", "403", "403", "204"), create: answers{"403", "403", "403", "200", "403"}, // a bad token is none where an account is made
	}, same(map[string]any{"email": unique("%s@example.com"), "password": password, "passwordConfirm": password}), map[string]any{"emailVisibility": true})
	add("_otps", seen, refs(map[string]any{"password": "12345678"}), map[string]any{"sentTo": "a"})
	add("_mfas", seen, refs(map[string]any{"method": unique("%s")}), map[string]any{"method": "x"})
	// Owners unlink what they signed in with.
	linked := seen
	linked.delete = hidden("404", "404", "204", "204")
	add("_externalAuths", linked, refs(map[string]any{"provider": "google", "providerId": unique("%s")}), map[string]any{"providerId": "1"})
	add("_authOrigins", linked, refs(map[string]any{"fingerprint": unique("%s")}), map[string]any{"fingerprint": "1"})

	people := collection{
		list: hidden("200 -", "200 -", "200 +", "200 +"), view: hidden("404", "404", "200", "200"), update: hidden("404", "404", "200", "200"),
		delete: hidden("404", "404", "204", "204"), create: everybody("200"),
	}
	people.seed = func(in *installation, owner *core.Record) (*core.Record, error) { return owner, nil }
	people.body = same(map[string]any{"email": unique("%s@example.com"), "password": password, "passwordConfirm": password})
	people.change = map[string]any{"name": "New"}
	all["_pb_users_auth_"] = people

	// What people see and cannot change.
	shown := closed()
	shown.list, shown.view = hidden("200 -", "200 +", "200 +", "200 +"), hidden("404", "200", "200", "200")
	add(notifications.CollectionCategories, shown, same(map[string]any{"key": unique("%s"), "name": "News", "kind": "transactional", "canOptOut": true}), map[string]any{"name": "New"})
	add(notifications.CollectionTopics, shown, same(map[string]any{"key": unique("%s"), "name": "News", "open": true}), map[string]any{"name": "New"})

	// What belongs to people.
	own := collection{
		list: hidden("200 -", "200 -", "200 +", "200 +"), view: hidden("404", "404", "200", "200"), create: hidden("400", "200", "200", "200"),
		update: hidden("404", "404", "200", "200"), delete: hidden("404", "404", "204", "204"),
	}
	add(notifications.CollectionDevices, own, owners("user", map[string]any{"platform": "android", "token": unique("%s-token"), "status": "active"}), map[string]any{"model": "New"})
	preferences := own
	preferences.create = hidden("400", "400", "200", "200") // for the owner, by somebody else
	add(notifications.CollectionPreferences, preferences, owners("user", map[string]any{"channel": "email", "enabled": true}), map[string]any{"enabled": false})
	subscriptions := own
	subscriptions.create, subscriptions.update = hidden("400", "400", "200", "200"), superusersOnly("200")
	add(notifications.CollectionSubscriptions, subscriptions, func(in *installation, owner *core.Record) map[string]any {
		topic, err := in.insert(notifications.CollectionTopics, map[string]any{"key": word(), "name": "News", "open": true})
		if err != nil {
			return nil
		}
		return map[string]any{"topic": topic.Id, "user": owner.Id}
	}, map[string]any{"user": "x"})
	consents := own
	consents.create, consents.update, consents.delete = hidden("400", "400", "200", "200"), superusersOnly("403"), superusersOnly("403")
	add(notifications.CollectionConsents, consents, owners("user", map[string]any{"channel": "email", "granted": true, "source": "Settings", "wording": "News by e-mail", "kind": "promotional"}), map[string]any{"granted": false})
	inbox := own
	inbox.create, inbox.delete = superusersOnly("200"), superusersOnly("204")
	add(notifications.CollectionInbox, inbox, owners("user", map[string]any{"title": "Hello"}), map[string]any{"readAt": "2026-01-01 00:00:00Z"})
	sessions := own
	sessions.create, sessions.update = superusersOnly("403"), superusersOnly("403")
	add(accounts.CollectionSessions, sessions, refs(map[string]any{"kind": "sign_in", "name": "Phone"}), map[string]any{"name": "New"})

	// Superusers only.
	add(notifications.CollectionTemplates, closed(), same(map[string]any{"key": unique("%s"), "title": "Hello"}), map[string]any{"title": "New"})
	add(notifications.CollectionSuppressions, closed(), same(map[string]any{"channel": "email", "address": unique("%s@example.com"), "reason": "manual"}), map[string]any{"reason": "bounce"})
	add(notifications.CollectionProviders, closed(), same(map[string]any{"name": "Mail", "channel": "email_transactional", "config": map[string]any{"host": "127.0.0.1", "port": 1, "tls": "none", "from": "a@example.com"}, "senderId": unique("%s@example.com")}), map[string]any{"name": "New"})
	add(notifications.CollectionNotifications, closed(), same(map[string]any{"title": "Hello"}), map[string]any{"title": "New"})
	add(notifications.CollectionTriggers, closed(), same(map[string]any{"name": unique("%s"), "collection": "users", "event": "created", "template": "gwwelcome000000", "channels": []string{"inbox"}}), map[string]any{"name": "New"})
	add(versions.Collection, closed(), same(map[string]any{"platform": "linux", "latest": "1.0.0"}), map[string]any{"latest": "2.0.0"})
	add(ratelimit.Collection, closed(), same(map[string]any{"name": unique("%s"), "route": "GET /nowhere", "audience": "all", "keyBy": "ip", "counts": "all", "limit": 1, "windowSeconds": 1}), map[string]any{"note": "New"})
	// Made by the server: nobody writes them.
	written := closed()
	written.create, written.update, written.delete = superusersOnly("403"), superusersOnly("403"), superusersOnly("403")
	add(notifications.CollectionDeliveries, written, owners("user", map[string]any{"channel": "email", "status": "captured", "target": unique("%s")}), map[string]any{"reason": "x"})
	add(accounts.CollectionErasures, written, same(map[string]any{"status": "done", "origin": "self", "collection": "users"}), map[string]any{"status": "done"})

	add("schedules", closed(), same(map[string]any{"name": unique("%s"), "cron": "0 9 * * 6", "action": "purge", "payload": map[string]any{"what": []string{"devices"}, "olderThanDays": 30}}), map[string]any{"name": "New"})
	add("schedule_runs", written, same(map[string]any{"schedule": unique("%s"), "status": "ok", "dueAt": "2026-01-01 00:00:00.000Z"}), map[string]any{"status": "failed"})

	// One row for each collection, and the users' is there from the start.
	phone := closed()
	phone.seed = func(in *installation, _ *core.Record) (*core.Record, error) {
		r, err := in.app.FindFirstRecordByData(accounts.CollectionPhoneSignIn, "collection", "users")
		if err == nil {
			return r, nil
		}
		return in.insert(accounts.CollectionPhoneSignIn, map[string]any{"collection": "users", "enabled": true})
	}
	phone.body = same(map[string]any{"collection": "users", "enabled": true})
	phone.change = map[string]any{"maxPerHour": 400}
	all[accounts.CollectionPhoneSignIn] = phone
	return all
}

// route is what one of our routes answers.
type route struct {
	path   string // with {id} for the owner's id
	body   map[string]any
	expect answers
	why    string
}

// routes are all of ours, by their pattern. Several requests may show one.
func routes() map[string][]route {
	const nowhere = "nosuchrecord000"
	form := "the signature is missing"
	return map[string][]route{
		"GET /api/version-check":                 {{path: "/api/version-check?platform=ios&version=1.0.0", expect: everybody("200"), why: "an old app has an old token"}},
		"GET /api/notifications/webpush-key":     {{path: "/api/notifications/webpush-key", expect: everybody("200"), why: "public by nature"}},
		"POST /api/version-check":                {{path: "/api/version-check", expect: everybody("405")}},
		"PUT /api/version-check":                 {{path: "/api/version-check", expect: everybody("405")}},
		"PATCH /api/version-check":               {{path: "/api/version-check", expect: everybody("405")}},
		"DELETE /api/version-check":              {{path: "/api/version-check", expect: everybody("405")}},
		"GET /{path...}":                         {{path: "/", expect: everybody("200"), why: "the static files are the same for all"}},
		"GET /_/extensions.js":                   {{path: "/_/extensions.js", expect: everybody("200"), why: "the dashboard's own, no data"}},
		"GET /_/extensions/groundwork/{path...}": {{path: "/_/extensions/groundwork/main.js", expect: everybody("200"), why: "the same: the routes that it calls ask who it is"}},

		"GET /api/unsubscribe/{token}":  {{path: "/api/unsubscribe/" + nowhere, expect: everybody("404"), why: "the token in the link is what counts"}},
		"POST /api/unsubscribe/{token}": {{path: "/api/unsubscribe/" + nowhere, expect: everybody("404"), why: "the token in the link is what counts"}},

		"POST /api/webhooks/twilio/status":  {{path: "/api/webhooks/twilio/status", expect: everybody("403"), why: form}},
		"POST /api/webhooks/email":          {{path: "/api/webhooks/email", expect: everybody("403"), why: form}},
		"POST /api/webhooks/twilio/inbound": {{path: "/api/webhooks/twilio/inbound", expect: everybody("403"), why: form}},

		"POST /api/notifications/preview":   {{path: "/api/notifications/preview", expect: superusersOnly("400"), why: "an empty body"}},
		"POST /api/notifications/{id}/test": {{path: "/api/notifications/" + nowhere + "/test", expect: superusersOnly("404")}},
		"POST /api/notifications/opened": {
			{path: "/api/notifications/opened", body: map[string]any{"token": nowhere + ".AAAAAAAAAAAAAAAAAAAAAA"}, expect: hidden("404", "404", "404", "404"), why: "the token of a message speaks for its recipient, and this one is forged"},
			{path: "/api/notifications/opened", body: map[string]any{"delivery": nowhere}, expect: answers{"401", "404", "404", "403", "401"}, why: "a recipient says so without a token"},
		},
		"GET /api/notifications/unread":    {{path: "/api/notifications/unread", expect: answers{"401", "200", "200", "403", "401"}, why: "always one's own inbox"}},
		"POST /api/notifications/read-all": {{path: "/api/notifications/read-all", expect: answers{"401", "200", "200", "403", "401"}, why: "always one's own inbox"}},

		"POST /api/notifications/{id}/retry":             {{path: "/api/notifications/" + nowhere + "/retry", expect: superusersOnly("404")}},
		"POST /api/notifications/deliveries/{id}/resend": {{path: "/api/notifications/deliveries/" + nowhere + "/resend", expect: superusersOnly("404")}},

		"GET /api/jobs":                        {{path: "/api/jobs", expect: superusersOnly("200")}},
		"GET /api/jobs/queues":                 {{path: "/api/jobs/queues", expect: superusersOnly("200")}},
		"GET /api/jobs/{id}":                   {{path: "/api/jobs/" + nowhere, expect: answers{"401", "404", "404", "404", "401"}, why: "a job has an owner"}},
		"POST /api/jobs/{id}/retry":            {{path: "/api/jobs/" + nowhere + "/retry", expect: superusersOnly("404")}},
		"POST /api/jobs/{id}/cancel":           {{path: "/api/jobs/" + nowhere + "/cancel", expect: superusersOnly("404")}},
		"POST /api/jobs/queues/{queue}/pause":  {{path: "/api/jobs/queues/nosuch/pause", expect: superusersOnly("404")}},
		"POST /api/jobs/queues/{queue}/resume": {{path: "/api/jobs/queues/nosuch/resume", expect: superusersOnly("404")}},
		"POST /api/schedules/explain":          {{path: "/api/schedules/explain", body: map[string]any{"cron": "0 9 * * 6"}, expect: superusersOnly("200")}},

		"POST /api/logout":        {{path: "/api/logout", expect: answers{"401", "204", "204", "204", "401"}, why: "ends the session that asks"}},
		"DELETE /api/account":     {{path: "/api/account", expect: answers{"401", "202", "202", "403", "401"}, why: "always one's own account"}},
		"GET /api/account/export": {{path: "/api/account/export", expect: answers{"401", "200", "200", "403", "401"}, why: "always one's own account"}},

		"POST /api/accounts/{collection}/{id}/erase": {
			{path: "/api/accounts/users/{id}/erase", expect: superusersOnly("202")},
			{path: "/api/accounts/_superusers/{superuser}/erase", expect: superusersOnly("400"), why: "superusers are staff"},
		},
		"GET /api/accounts/{collection}/{id}/export": {
			{path: "/api/accounts/users/{id}/export", expect: superusersOnly("200")},
			{path: "/api/accounts/_superusers/{superuser}/export", expect: superusersOnly("400")},
		},

		"POST /api/collections/{collection}/request-phone-otp": {
			{path: "/api/collections/users/request-phone-otp", body: map[string]any{"phone": "+447700900123"}, expect: everybody("200"), why: "the same answer for every number"}},
		"POST /api/collections/{collection}/request-phone-verification": {
			{path: "/api/collections/users/request-phone-verification", body: map[string]any{"phone": "+447700900123"}, expect: answers{"401", "200", "200", "403", "401"}}},
		"POST /api/collections/{collection}/confirm-phone-verification": {
			{path: "/api/collections/users/confirm-phone-verification", body: map[string]any{"otpId": nowhere, "code": "123456"}, expect: answers{"401", "400", "400", "403", "401"}}},
	}
}
