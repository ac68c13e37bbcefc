package hooks

import (
	"slices"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/subscriptions"

	"github.com/groundworkhq/groundwork/internal/accounts"
)

// clientHolderKey is where a realtime client keeps whose token it subscribed with.
const clientHolderKey = "groundwork.sessions.holder"

// bindSessionRealtime takes auth and subscriptions from the realtime clients of a
// session that ended. The connection stays: the SDK would open another one at
// once, and again.
func (g *groundwork) bindSessionRealtime() {
	g.app.OnRealtimeSubscribeRequest().Bind(&hook.Handler[*core.RealtimeSubscribeRequestEvent]{
		Id: "groundwork.sessions.subscribe", Priority: 9999, Func: func(e *core.RealtimeSubscribeRequestEvent) error {
			holder, ok := e.Get(holderKey).(accounts.Holder)
			if !ok {
				e.Client.Unset(clientHolderKey)
				return e.Next()
			}
			// Before PocketBase signs the client in: whoever ends the session from now on
			// finds it. Who did so before is found by the check.
			e.Client.Set(clientHolderKey, holder)
			err := e.Next()
			if g.sessions.Check(holder) != nil {
				signOutClient(e.Client)
			}
			return err
		}})

	// Another process may have ended the session, and not have told yet.
	g.app.OnRealtimeMessageSend().Bind(&hook.Handler[*core.RealtimeMessageEvent]{
		Id: "groundwork.sessions.message", Priority: -9999, Func: func(e *core.RealtimeMessageEvent) error {
			if holder, ok := e.Client.Get(clientHolderKey).(accounts.Holder); ok && g.sessions.Check(holder) != nil {
				signOutClient(e.Client)
				return nil
			}
			return e.Next()
		}})
}

// signOutClients does so for the sessions with these ids; nil means for all that
// have ended.
func (g *groundwork) signOutClients(ids []string) {
	for _, chunk := range g.app.SubscriptionsBroker().ChunkedClients(500) {
		for _, client := range chunk {
			holder, ok := client.Get(clientHolderKey).(accounts.Holder)
			if !ok {
				continue
			}
			if slices.Contains(ids, holder.Key()) || (ids == nil && g.sessions.Check(holder) != nil) {
				signOutClient(client)
			}
		}
	}
}

func signOutClient(client subscriptions.Client) {
	client.Unsubscribe()
	client.Unset(apis.RealtimeClientAuthKey)
	client.Unset(clientHolderKey)
}
