package hooks

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/sms"
)

// webhookBodyLimit is many times what a callback has.
const webhookBodyLimit = 64 << 10

// emptyTwiML tells Twilio to say nothing: to STOP, START and HELP it answers
// itself.
const emptyTwiML = `<?xml version="1.0" encoding="UTF-8"?><Response/>`

// bindWebhooks takes what SMS providers tell: what became of a message, and what
// people answer. It asks by itself where nothing was told.
func (g *groundwork) bindWebhooks() {
	added := false
	g.app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		// Outside of the hook that builds the sender, so that it is there after Next.
		Id: "groundwork.webhooks.build", Priority: -1, Func: func(e *core.BootstrapEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			if !added && g.sender != nil {
				added = true
				g.sender.AddReceiptWorkers(g.workers)
			}
			return nil
		}})
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.webhooks.routes", Func: func(e *core.ServeEvent) error {
			e.Router.POST(sms.StatusPath, g.twilioStatus).Bind(apis.BodyLimit(webhookBodyLimit))
			e.Router.POST(sms.InboundPath, g.twilioInbound).Bind(apis.BodyLimit(webhookBodyLimit))
			return e.Next()
		}})
	if err := g.app.Cron().Add("groundwork.sms.poll", "* * * * *", func() {
		if !g.ready(g.app) {
			return
		}
		if _, err := jobs.Enqueue(g.app, notifications.SMSPollArgs{}, jobs.Options{Queue: jobs.QueueMaintenance, UniqueKey: "poll"}); err != nil {
			g.log.Error("poll for receipts cannot be enqueued", "error", err)
		}
	}); err != nil {
		panic(err) // the expression above is a constant
	}
}

// twilioStatus takes a status callback. An answer that is no success makes Twilio
// try again, so that what is not for us is answered with one.
func (g *groundwork) twilioStatus(e *core.RequestEvent) error {
	form, from, err := g.signedByTwilio(e)
	if err != nil {
		return err
	}
	receipt, ok := sms.ParseStatus(form)
	if !ok {
		return e.NoContent(http.StatusNoContent)
	}
	receipt.DeliveryID = e.Request.URL.Query().Get("delivery")
	if err := g.sender.TakeReceipt(receipt, from); err != nil {
		return e.InternalServerError("The status cannot be stored right now; send it again.", err)
	}
	return e.NoContent(http.StatusNoContent)
}

// twilioInbound takes a text that a person sent to one of our senders.
func (g *groundwork) twilioInbound(e *core.RequestEvent) error {
	form, from, err := g.signedByTwilio(e)
	if err != nil {
		return err
	}
	in := sms.ParseInbound(form)
	kind := writtenTo(from, in)
	if kind != "" && (in.Word == sms.WordStop || in.Word == sms.WordStart) {
		err := g.sender.TakeOptOut(notifications.OptOut{MessageID: in.SID, Number: in.From, Kind: kind,
			Stop: in.Word == sms.WordStop, Widen: g.cfg.StopWidens})
		if err != nil {
			return e.InternalServerError("The message cannot be stored right now; send it again.", err)
		}
	}
	return e.Blob(http.StatusOK, "text/xml; charset=utf-8", []byte(emptyTwiML))
}

// writtenTo returns what the sender that a person wrote to sends; empty when it is
// none of ours. A number of its own goes before the service that it belongs to.
func writtenTo(from []notifications.ProviderConfig, in sms.Inbound) notifications.Kind {
	for _, address := range []string{in.To, in.Service} {
		for _, cfg := range from {
			if notifications.SameSender(cfg.SenderID, address) {
				return cfg.Channel.Kind()
			}
		}
	}
	return ""
}

// signedByTwilio returns the form of a request that was signed with the auth token
// of an SMS provider, and the providers with that account and token. The error is
// the answer.
func (g *groundwork) signedByTwilio(e *core.RequestEvent) (url.Values, []notifications.ProviderConfig, error) {
	if err := e.Request.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, nil, e.Error(http.StatusRequestEntityTooLarge, "The request is larger than any of Twilio's.", nil)
		}
		return nil, nil, e.BadRequestError("The form cannot be read.", err)
	}
	form := e.Request.PostForm
	configs, err := g.providers.SMSProviders(e.App)
	if err != nil {
		return nil, nil, e.InternalServerError("The providers cannot be read right now; try again.", err)
	}
	account, signature, address := form.Get("AccountSid"), e.Request.Header.Get("X-Twilio-Signature"), requestedURL(e)
	known := false
	var from []notifications.ProviderConfig
	for _, cfg := range configs {
		sid, _ := cfg.Config["accountSid"].(string)
		if account == "" || strings.TrimSpace(sid) != account {
			continue
		}
		known = true
		if sms.ValidSignature(strings.TrimSpace(cfg.Secret), address, form, signature) {
			from = append(from, cfg)
		}
	}
	switch {
	case len(from) > 0:
		return form, from, nil
	case !known:
		return nil, nil, e.ForbiddenError("No SMS provider with this Twilio account is set up here.", nil)
	}
	g.log.Warn("webhook refused: its signature fits no auth token", "path", e.Request.URL.Path, "for", address)
	return nil, nil, e.ForbiddenError(
		"The signature is not right: the auth token here must be the account's primary one, and the public address in Settings > Application the one that Twilio calls.", nil)
}

// requestedURL is the address that Twilio called, which is part of what it signs:
// behind a proxy only the settings know it.
func requestedURL(e *core.RequestEvent) string {
	base := publicURL(e.App)
	if base == "" {
		scheme := "http"
		if e.IsTLS() || strings.EqualFold(e.Request.Header.Get("X-Forwarded-Proto"), "https") {
			scheme = "https"
		}
		base = scheme + "://" + e.Request.Host
	}
	address := base + e.Request.URL.EscapedPath()
	if e.Request.URL.RawQuery != "" {
		address += "?" + e.Request.URL.RawQuery
	}
	return address
}
