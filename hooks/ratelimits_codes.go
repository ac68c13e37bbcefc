package hooks

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/routine"

	"github.com/groundworkhq/groundwork/internal/ratelimit"
)

// takeCode lets a code be tried as often as the account's rule allows, and never
// again: a code dies at the last wrong try, whoever tried, from wherever. The
// counter is what kills it; its row is deleted a moment later.
func (t *taking) takeCode(s *subject) error {
	if s.codeLimit == 0 {
		return nil
	}
	limiter := t.limits.limiter
	s.codeSlot = limiter.Take(t.event.Request.Context(), ratelimit.Count{
		Key:     limiter.Key("code tries", s.code),
		Window:  ratelimit.Window{Limit: s.codeLimit, Length: 24 * time.Hour}, // PocketBase's longest life of a code
		Durable: true,
	})
	if s.codeSlot.OK {
		return nil
	}
	t.refused(&ratelimit.Rule{KeyBy: ratelimit.KeyAccount})
	return t.event.BadRequestError("Invalid or expired OTP", nil) // as PocketBase says of one that is gone
}

// handle runs the handler of a request about an account.
func (l *limits) handle(e *core.RequestEvent, s *subject) error {
	if isCodeRequest(e.Request.Pattern) {
		return l.handleCodeRequest(e, s)
	}
	if !s.codeSlot.OK {
		return e.Next()
	}
	failed := true
	defer func() {
		if !failed {
			s.codeSlot.GiveBack()
			return
		}
		if s.codeSlot.Remaining == 0 {
			app, id := e.App, s.code
			// Not here: it would take longer for a code that exists.
			routine.FireAndForget(func() {
				if otp, err := app.FindOTPById(id); err == nil {
					if err := app.Delete(otp); err != nil {
						l.g.log.Error("a code that was tried too often cannot be deleted; it stays unusable", "error", err)
					}
				}
			})
		}
	}()
	err := e.Next()
	failed = isFailure(e, err)
	return err
}

// handleCodeRequest remembers which account a code was asked for, before the
// answer says its id: for one that exists and for one that does not.
func (l *limits) handleCodeRequest(e *core.RequestEvent, s *subject) error {
	if s.account == nil {
		return e.Next()
	}
	held := &heldAnswer{ResponseWriter: e.Response}
	e.Response = held
	defer func() { e.Response = held.ResponseWriter }()
	err := e.Next()
	if held.status == 0 {
		return err // nothing was written: the error is the answer
	}
	var answer struct {
		OTPId string `json:"otpId"`
	}
	if held.status == http.StatusOK && json.Unmarshal(held.body, &answer) == nil && answer.OTPId != "" {
		account := *s.account
		if otp, err := e.App.FindOTPById(answer.OTPId); err == nil {
			account = l.limiter.Account(otp.CollectionRef(), otp.RecordRef())
		}
		if err := l.limiter.RememberCode(e.Request.Context(), answer.OTPId, account, codeLife(s.collection)); err != nil {
			l.g.log.Error("it cannot be remembered whom a code is about", "error", err)
		}
	}
	held.ResponseWriter.WriteHeader(held.status)
	if _, writeErr := held.ResponseWriter.Write(held.body); err == nil {
		err = writeErr
	}
	return err
}

// heldAnswer keeps a small answer until it is let go.
type heldAnswer struct {
	http.ResponseWriter
	status int
	body   []byte
}

func (w *heldAnswer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *heldAnswer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, b...)
	return len(b), nil
}

// Written and Status are how PocketBase asks what was answered.
func (w *heldAnswer) Written() bool { return w.status != 0 }

func (w *heldAnswer) Status() int { return w.status }

// rememberAddress makes the address of a request one of the account's own.
func (l *limits) rememberAddress(e *core.RequestEvent, record *core.Record) {
	if l.limiter == nil || record == nil {
		return
	}
	if err := l.limiter.Remember(e.Request.Context(), l.accountOf(record), l.network(e)); err != nil {
		l.g.log.Error("the address of an account's owner cannot be remembered", "error", err)
	}
}

// bindKnownAddresses remembers where accounts are signed in from.
func (l *limits) bindKnownAddresses() {
	l.g.app.OnRecordAuthRequest().Bind(&hook.Handler[*core.RecordAuthRequestEvent]{
		// Around everything else: what comes back without an error is a whole sign-in,
		// after both factors where there are two. A refresh and an impersonation have no
		// method.
		Id: "groundwork.limits.known", Priority: priorityFirst, Func: func(e *core.RecordAuthRequestEvent) error {
			if err := e.Next(); err != nil || e.AuthMethod == "" || e.Status() >= http.StatusBadRequest {
				return err
			}
			l.rememberAddress(e.RequestEvent, e.Record)
			return nil
		}})
	// Somebody who keeps an account full of wrong passwords would have its owner out
	// for ever where they have not signed in yet. A link that was mailed to the
	// account proves them too; and whoever made it has been there first.
	l.g.app.OnRecordConfirmPasswordResetRequest().Bind(&hook.Handler[*core.RecordConfirmPasswordResetRequestEvent]{
		Id: "groundwork.limits.known", Priority: priorityFirst, Func: func(e *core.RecordConfirmPasswordResetRequestEvent) error {
			err := e.Next()
			if err == nil {
				l.rememberAddress(e.RequestEvent, e.Record)
			}
			return err
		}})
	l.g.app.OnRecordConfirmVerificationRequest().Bind(&hook.Handler[*core.RecordConfirmVerificationRequestEvent]{
		Id: "groundwork.limits.known", Priority: priorityFirst, Func: func(e *core.RecordConfirmVerificationRequestEvent) error {
			err := e.Next()
			if err == nil {
				l.rememberAddress(e.RequestEvent, e.Record)
			}
			return err
		}})
	l.g.app.OnRecordCreateRequest().Bind(&hook.Handler[*core.RecordRequestEvent]{
		Id: "groundwork.limits.known", Priority: priorityFirst, Func: func(e *core.RecordRequestEvent) error {
			err := e.Next()
			if err == nil && e.Auth == nil && e.Collection.IsAuth() {
				l.rememberAddress(e.RequestEvent, e.Record)
			}
			return err
		}})
	// At once where the app serves. The erasure does it again: a crash comes in between,
	// and a command deletes accounts too.
	l.g.app.OnRecordAfterDeleteSuccess().Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.limits.forget", Func: func(e *core.RecordEvent) error {
			if e.Record.Collection().IsAuth() && l.limiter != nil {
				if err := l.limiter.Forget(e.Context, l.accountOf(e.Record)); err != nil {
					l.g.log.Error("the addresses of a deleted account cannot be forgotten", "error", err)
				}
			}
			return e.Next()
		}})
}

// forget drops the addresses of an account that is gone, also in a command that works on
// a folder which it does not serve.
func (l *limits) forget(ctx context.Context, collection, record string) error {
	if l.limiter == nil {
		if err := l.start(l.g.app); err != nil {
			return err
		}
	}
	return l.limiter.Forget(ctx, l.limiter.Account(collection, record))
}
