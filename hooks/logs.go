package hooks

import (
	"context"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/router"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/internal/redact"
	"github.com/groundworkhq/groundwork/internal/requestlog"
	"github.com/groundworkhq/groundwork/notifications"
)

// quietPaths are asked all the time and say nothing when they succeed.
var quietPaths = map[string]bool{"/api/health": true, "/api/version-check": true, "/api/realtime": true}

// bindLogs writes one JSON line per request, and takes secrets and people's
// addresses out of the rows that PocketBase stores.
func (g *groundwork) bindLogs() {
	g.app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.Router.Bind(&hook.Handler[*core.RequestEvent]{
			// Outside PocketBase's recovery from panics, inside the request id.
			Id: "groundwork.logs.request", Priority: apis.DefaultActivityLoggerMiddlewarePriority - 5, Func: g.logRequest})
		return e.Next()
	})
	g.app.OnModelCreate("_logs").Bind(&hook.Handler[*core.ModelEvent]{
		Id: "groundwork.logs.redact", Priority: -9999, Func: func(e *core.ModelEvent) error {
			if row, ok := e.Model.(*core.Log); ok {
				// Before redact.URL: the message is unescaped already, and a plus would be
				// taken for a space.
				row.Message = redact.URL(maskAddresses(redact.String(row.Message)))
				data, _ := maskValue(redact.Value(map[string]any(row.Data))).(map[string]any)
				row.Data = types.JSONMap[any](data)
				if kind, _ := data["type"].(string); kind != "request" {
					g.log.Log(context.Background(), slog.Level(row.Level), row.Message, "data", data)
				}
			}
			return e.Next()
		}})
}

func (g *groundwork) logRequest(e *core.RequestEvent) error {
	start := time.Now()
	err := e.Next()
	status := e.Status()
	// Some handlers answer first and return an error for the log: that a password
	// was forgotten at an unknown address, for example.
	if err != nil && !e.Written() {
		status = router.ToApiError(err).Status
	}
	path := e.Request.URL.Path
	if e.Get(eventKeyQuiet) != nil {
		return err // see bindLimits: counted there
	}
	if status < http.StatusBadRequest && (quietPaths[path] || strings.HasPrefix(path, "/_/")) {
		return err
	}
	level := slog.LevelInfo
	switch {
	case status >= http.StatusInternalServerError:
		level = slog.LevelError
	case status >= http.StatusBadRequest && status != http.StatusUnauthorized && status != http.StatusNotFound:
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("method", e.Request.Method), slog.String("path", maskAddresses(redact.URL(e.Request.URL.RequestURI()))), slog.Int("status", status),
		slog.Float64("ms", float64(time.Since(start).Microseconds())/1000), slog.String("ip", g.limits.shownAddress(e)), slog.String("requestId", requestlog.ID(e)),
	}
	if e.Auth != nil {
		attrs = append(attrs, slog.String("user", e.Auth.Id), slog.String("userCollection", e.Auth.Collection().Name))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", maskAddresses(redact.String(err.Error()))))
	}
	g.log.LogAttrs(e.Request.Context(), level, "request", attrs...)
	return err
}

var (
	emailPattern = regexp.MustCompile(`([\p{L}\p{N}._%+'\-]+)(?:@|%40)((?:[\p{L}\p{N}\-]+\.)+\p{L}{2,})`)
	phonePattern = regexp.MustCompile(`(?:\+|%2B)[1-9]\d{6,14}\b`)
)

// maskAddresses shortens the e-mail addresses and phone numbers in a text.
func maskAddresses(s string) string {
	if strings.ContainsAny(s, "@%") {
		s = emailPattern.ReplaceAllStringFunc(s, func(address string) string {
			m := emailPattern.FindStringSubmatch(address)
			return notifications.MaskAddress(notifications.ChannelEmail, m[1]+"@"+m[2])
		})
	}
	if strings.ContainsAny(s, "+%") {
		s = phonePattern.ReplaceAllStringFunc(s, func(phone string) string {
			return notifications.MaskAddress(notifications.ChannelSMS, phone)
		})
	}
	return s
}

// maskValue is [maskAddresses] for decoded JSON, at any depth. It changes v.
func maskValue(v any) any {
	switch v := v.(type) {
	case string:
		return maskAddresses(v)
	case map[string]any:
		for name, item := range v {
			v[name] = maskValue(item)
		}
	case []any:
		for i, item := range v {
			v[i] = maskValue(item)
		}
	}
	return v
}
