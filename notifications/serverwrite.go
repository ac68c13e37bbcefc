package notifications

import "context"

type serverWriteKey struct{}

// AsServer marks the writes made with ctx as the server's own: they may change
// server-owned fields (statuses, counts, times, results). Everybody else's
// writes to those fields are ignored, an administrator's and Go code's too.
//
//	app.SaveWithContext(notifications.AsServer(ctx), record)
func AsServer(ctx context.Context) context.Context {
	return context.WithValue(ctx, serverWriteKey{}, true)
}

// IsServer reports whether ctx was made by [AsServer].
func IsServer(ctx context.Context) bool {
	ok, _ := ctx.Value(serverWriteKey{}).(bool)
	return ok
}
