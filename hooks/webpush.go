package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/webpush"
)

// webPushSubjectPlaceholder is what PocketBase's settings say until somebody
// changes them.
const webPushSubjectPlaceholder = "support@example.com"

// bindWebPush makes the key pair on the first start, keeps the provider's row up
// to date, and tells clients the public key.
func (g *groundwork) bindWebPush() {
	app := g.app
	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		// Before the providers start: they store and check what is set here.
		Id: "groundwork.webpush.key", Priority: prioritySenderStart - 1, Func: func(e *core.ServeEvent) error {
			if err := g.setWebPush(e.App); err != nil {
				return err
			}
			e.Router.GET("/api/notifications/webpush-key", g.webPushKey)
			return e.Next()
		}})
	app.OnSettingsReload().Bind(&hook.Handler[*core.SettingsReloadEvent]{
		Id: "groundwork.webpush.settings", Func: func(e *core.SettingsReloadEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			if g.client.Load() == nil || g.cfg.WebPushSubject != "" || g.subject.Load() == any(g.webPushSubject(e.App)) {
				return nil
			}
			if err := g.setWebPush(e.App); err != nil {
				return err
			}
			return g.providers.EnvironmentChanged(e.App, notifications.ProviderWebPush)
		}})
}

func (g *groundwork) setWebPush(app core.App) error {
	key, err := notifications.WebPushKey(app, g.box, webpush.NewKey)
	if err != nil {
		return fmt.Errorf("prepare Web Push: %w", err)
	}
	subject := g.webPushSubject(app)
	g.subject.Store(subject)
	cfg := notifications.ProviderConfig{Name: "Web Push (built in)", Channel: notifications.ProviderWebPush,
		Config: map[string]any{"subject": subject}, Secret: key}
	if key != "" {
		public, err := webpush.PublicKey(key)
		if err != nil {
			return fmt.Errorf("prepare Web Push: %w", err)
		}
		cfg.Config["publicKey"] = public
	}
	g.providers.SetEnvironment(cfg)
	if g.cfg.Env == EnvProduction && strings.HasSuffix(subject, webPushSubjectPlaceholder) {
		g.log.Warn("web push names nobody whom push services could reach, and Apple's may refuse it: set WEBPUSH_SUBJECT, or the sender address in Settings > Mail settings")
	}
	return nil
}

// webPushSubject is WEBPUSH_SUBJECT, or the sender address of the mail settings;
// as long as that is a placeholder, the app's own address if it is an https one.
func (g *groundwork) webPushSubject(app core.App) string {
	if g.cfg.WebPushSubject != "" {
		return g.cfg.WebPushSubject
	}
	sender := app.Settings().Meta.SenderAddress
	if url := publicURL(app); (sender == webPushSubjectPlaceholder || sender == "") && strings.HasPrefix(url, "https://") {
		return url
	}
	if sender == "" {
		sender = webPushSubjectPlaceholder
	}
	return "mailto:" + sender
}

// webPushKey answers with the applicationServerKey, which is no secret.
func (g *groundwork) webPushKey(e *core.RequestEvent) error {
	e.Response.Header().Set("Cache-Control", "no-store")
	cfg, err := g.providers.Config(e.App, notifications.Route{Channel: notifications.ProviderWebPush})
	if errors.Is(err, notifications.ErrNoProvider) {
		return e.NotFoundError("Web Push is switched off on this server.", nil)
	}
	if err == nil {
		var public string
		if public, err = webpush.PublicKey(cfg.Secret); err == nil {
			return e.JSON(http.StatusOK, map[string]string{"publicKey": public})
		}
	}
	return e.Error(http.StatusServiceUnavailable, "Web Push cannot be used at the moment; try again later.", err)
}

// checkPushEndpoint adds to problems that a browser's subscription leads where
// nothing is sent. A device that is stored already is left alone.
func (g *groundwork) checkPushEndpoint(r *core.Record, problems validation.Errors) {
	token := r.GetString("token")
	if r.GetString("pushService") != "webpush" || problems["token"] != nil ||
		!r.IsNew() && registrationOf(r) == nil && token == r.Original().GetString("token") {
		return
	}
	var sub struct {
		Endpoint string `json:"endpoint"`
	}
	if json.Unmarshal([]byte(token), &sub) != nil {
		return // the form was judged before
	}
	if err := webpush.CheckEndpoint(sub.Endpoint, g.cfg.WebPushPrivateHosts); err != nil {
		problems["token"] = sentence("invalid_token", "the endpoint of the subscription "+err.Error()+"; send JSON.stringify(subscription) as the browser gave it")
	}
}
