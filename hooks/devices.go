package hooks

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/types"
	"golang.org/x/text/language"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/requestlog"
	"github.com/groundworkhq/groundwork/notifications"
)

// Whoever knows a device's token can have the device: nothing else is known of
// it. These limits keep that from being a weapon. They count in the database, so
// that a restart forgets nothing.
const (
	// maxMovesPerToken is how often within deviceMoveWindow a device may be taken
	// from somebody whom it reaches. Whoever had it first (see homeOf) may always
	// take it back, so that a stranger who uses the limit up ends without it.
	maxMovesPerToken = 10

	// maxMovesPerUser is how many devices one person may take within deviceMoveWindow.
	maxMovesPerUser = 20

	deviceMoveWindow = 24 * time.Hour

	// deviceMovesKept is how long it is remembered who had a device first.
	deviceMovesKept = 30 * 24 * time.Hour

	// maxDevicesPerUser is how many rows one person may have. One more removes
	// those that no push reaches, then the one that was registered first.
	maxDevicesPerUser = 50
)

var deviceOwnership = ownership{
	collection:    notifications.CollectionDevices,
	always:        []string{"session", "status", "statusReason", "registeredAt"},
	afterCreation: []string{"user", "token"},
	defaults: map[string]func() any{
		"status":       constant("active"),
		"registeredAt": func() any { return types.NowDateTime() },
	},
	renewed: func(r *core.Record) bool { return registrationOf(r) != nil },
}

// pushServices are the services that reach a platform, the usual one first.
var pushServices = map[string][]string{
	"ios":     {"apns", "fcm"},
	"android": {"fcm"},
	"web":     {"webpush", "fcm"},
}

// registrationKey marks a record that a create request saves. It is no field, so
// it is neither stored nor shown.
const registrationKey = "groundwork:registration"

// claimedKey keeps the owner that a registration gave to a record object: what
// PocketBase remembers of it is from before.
const claimedKey = "groundwork:claimed"

// registration is a create request on its way to the row.
type registration struct {
	user, token string
	session     string // of the person whose device it becomes; empty when somebody else registers it
	requestID   string
	superuser   bool

	// retryAfter is set when a limit refused it.
	retryAfter time.Duration
}

func registrationOf(r *core.Record) *registration {
	reg, _ := r.GetRaw(registrationKey).(*registration)
	return reg
}

// bindDevices makes `create` all that a client needs: it is the same whether the
// device is new, known, or somebody else's until now.
func (g *groundwork) bindDevices() {
	app, collection := g.app, notifications.CollectionDevices

	// First, so that the application's own hooks see the record that is saved.
	app.OnRecordCreateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{
		Id: "groundwork.devices.register", Priority: priorityFirst, Func: registerDevice})

	// The table of server-owned fields does not have them: a superuser may change
	// them, and Go code.
	app.OnRecordUpdateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{
		Id: "groundwork.devices.ownerlocked", Func: lockForOwner("platform", "pushService", "environment")})

	normalize := func(e *core.RecordEvent) error {
		_ = normalizeDevice(e.Record) // OnRecordValidate says what is wrong
		return e.Next()
	}
	app.OnRecordCreate(collection).Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.devices.normalize", Priority: priorityLast, Func: normalize})
	app.OnRecordUpdate(collection).Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.devices.normalize", Priority: priorityLast, Func: normalize})
	app.OnRecordValidate(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.devices.validate", Func: func(e *core.RecordEvent) error {
			problems := normalizeDevice(e.Record)
			g.checkPushEndpoint(e.Record, problems)
			// PocketBase's own checks too, so that an answer has all that is wrong.
			if err := e.Next(); err != nil {
				var theirs validation.Errors
				if !errors.As(err, &theirs) {
					return err
				}
				for field, problem := range theirs {
					problems[field] = problem
				}
			}
			if len(problems) > 0 {
				return problems
			}
			return nil
		}})

	app.OnRecordCreateExecute(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.devices.claim", Priority: priorityExecute, Func: g.createDevice})
	app.OnRecordUpdateExecute(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.devices.claim", Priority: priorityExecute, Func: g.updateDevice})
	// PocketBase deletes in a transaction.
	app.OnRecordDeleteExecute(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.devices.stillowned", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			stored, err := storedNow(e)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return fmt.Errorf("read device %s before deleting: %w", e.Record.Id, err)
			}
			if err == nil && stored.GetString("user") != e.Record.GetString("user") {
				return apis.NewNotFoundError("", nil) // it moved after the request looked
			}
			return e.Next()
		}})
}

// registerDevice turns the creation of a known device into an update of its row,
// which then holds what was sent and nothing else.
//
// What it finds may be outdated by the time the row is written: createDevice and
// updateDevice look again, inside the write's transaction. The request itself
// runs in none: the application's hooks are free to write through the outer app.
func registerDevice(e *core.RecordRequestEvent) error {
	reg := &registration{superuser: e.HasSuperuserAuth(), requestID: requestlog.ID(e.RequestEvent)}
	if !reg.superuser {
		// The create rule says it too, until somebody opens it.
		if e.Auth == nil || !isUsers(e.App, e.Auth.Collection()) {
			return e.ForbiddenError("Only people who are signed in register devices.", nil)
		}
		e.Record.Set("user", e.Auth.Id)
		reg.session = sessionOf(e.RequestEvent)
	}

	// As it was sent: PocketBase has made a text of it by now, an empty one of an
	// object.
	body := map[string]any{}
	if err := e.BindBody(&body); err != nil {
		return e.BadRequestError("The request body cannot be read.", err)
	}
	switch token := body["token"].(type) {
	case nil, string:
	case map[string]any: // a PushSubscription as the browser gave it
		raw, err := json.Marshal(token)
		if err != nil {
			return e.BadRequestError("The token cannot be read.", err)
		}
		e.Record.Set("token", string(raw))
	default:
		return e.BadRequestError("Failed to create record.", validation.Errors{"token": sentence("invalid_token", "the token must be a text")})
	}

	problems := normalizeDevice(e.Record)
	reg.user, reg.token = e.Record.GetString("user"), e.Record.GetString("token")
	if len(problems) == 0 && reg.token != "" {
		known, err := findDevice(e.App, e.Record.Collection(), reg.token)
		if err != nil {
			return e.InternalServerError("The devices cannot be read right now; try again.", err)
		}
		if known != nil {
			replaceFields(known, e.Record)
			e.Record = known
			requestlog.SetRecordRequestID(known, reg.requestID)
		}
	}

	e.Record.SetRaw(registrationKey, reg)
	err := e.Next()
	if reg.retryAfter > 0 {
		e.Response.Header().Set("Retry-After", strconv.Itoa(int(reg.retryAfter/time.Second)+1))
	}
	return err
}

// replaceFields makes r what sent is, fields that were not sent included: nothing
// of the former owner stays, whoever added the field.
func replaceFields(r, sent *core.Record) {
	for _, f := range r.Collection().Fields {
		if f.GetName() == core.FieldNameId || f.Type() == core.FieldTypeAutodate {
			continue // see renewDates
		}
		r.SetRaw(f.GetName(), sent.GetRaw(f.GetName()))
	}
}

// renewDates lets the row begin now: when it was made is the former owner's.
func renewDates(r *core.Record) {
	for _, f := range r.Collection().Fields {
		if date, ok := f.(*core.AutodateField); ok && date.OnCreate {
			r.SetRaw(date.Name, types.NowDateTime())
		}
	}
}

// findDevice returns the device that a token in its stored form belongs to, nil
// when there is none. Of a browser's subscription the endpoint decides: it is
// the address, and the keys may be new.
func findDevice(app core.App, collection *core.Collection, token string) (*core.Record, error) {
	var where dbx.Expression = dbx.HashExp{"token": token}
	if address := deviceAddress(token); address != token {
		// A range, so that the index on token serves it. '-' is the next byte after ','.
		where = dbx.NewExp("[[token]] >= {:from} AND [[token]] < {:to}", dbx.Params{"from": address + ",", "to": address + "-"})
	}
	r := &core.Record{}
	err := app.RecordQuery(collection).AndWhere(where).Limit(1).One(r)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find device by token: %w", err)
	}
	return r, nil
}

// deviceAddress is the part of a token in its stored form that no two devices
// share.
func deviceAddress(token string) string {
	if strings.HasPrefix(token, webPushPrefix) {
		if address, _, ok := strings.Cut(token, webPushKeys); ok {
			return address
		}
	}
	return token
}

// createDevice writes a new row. When the same device was registered since the
// request looked, by a second request at the same time, that row makes way and
// its id stays: both requests are answered alike.
func (g *groundwork) createDevice(e *core.RecordEvent) error {
	return inTransaction(e, func() error {
		reg := registrationOf(e.Record)
		known, err := findDevice(e.App, e.Record.Collection(), e.Record.GetString("token"))
		if err != nil {
			return err
		}
		if known != nil {
			if reg == nil {
				return validation.Errors{"token": sentence("already_registered", "this device is registered already; change its record instead of making another")}
			}
			if err := g.moveDevice(e.App, known, e.Record, reg); err != nil {
				return err
			}
			if err := removeRow(e.App, known); err != nil {
				return err
			}
			e.Record.Id = known.Id
		}
		return g.claimed(e)
	})
}

// updateDevice writes a changed row, and that of a known device which is
// registered again.
func (g *groundwork) updateDevice(e *core.RecordEvent) error {
	reg := registrationOf(e.Record)
	if reg == nil {
		return inTransaction(e, func() error {
			// Read before the device moved: what the former owner writes must not reach
			// the new one's row, nor the answer show it.
			owner, _ := e.Record.GetRaw(claimedKey).(string)
			if owner == "" {
				before, err := storedBefore(e)
				if errors.Is(err, sql.ErrNoRows) {
					return e.Next()
				}
				if err != nil {
					return fmt.Errorf("read device %s before saving: %w", e.Record.Id, err)
				}
				owner = before.GetString("user")
			}
			// The user was restored from the row as it is now, but for the server's own saves.
			if !notifications.IsServer(e.Context) && owner != e.Record.GetString("user") {
				return apis.NewNotFoundError("", nil)
			}
			return e.Next()
		})
	}

	return inTransaction(e, func() error {
		e.Record.SetRaw("user", reg.user)
		e.Record.SetRaw("token", reg.token)
		known, err := findDevice(e.App, e.Record.Collection(), reg.token)
		if err != nil {
			return err
		}
		if known != nil {
			if err := g.moveDevice(e.App, known, e.Record, reg); err != nil {
				return err
			}
		}
		if known == nil || known.Id != e.Record.Id {
			// Deleted since the request looked, and perhaps registered anew. An update
			// needs a row.
			renewDates(e.Record)
			if known != nil {
				if err := removeRow(e.App, known); err != nil {
					return err
				}
			}
			_, err := e.App.DB().Insert(e.Record.TableName(), dbx.Params{"id": e.Record.Id}).Execute()
			if err != nil {
				return fmt.Errorf("insert device %s again: %w", e.Record.Id, err)
			}
		}
		return g.claimed(e)
	})
}

// claimed goes on with the save of a device that was registered and keeps its
// owner's devices at their number.
func (g *groundwork) claimed(e *core.RecordEvent) error {
	if reg := registrationOf(e.Record); reg != nil && reg.session != "" {
		// It may have ended since the request began; what ends with it has then been
		// looked for already.
		if _, err := e.App.FindRecordById(accounts.CollectionSessions, reg.session); err != nil {
			if errors.Is(err, sql.ErrNoRows) {
				return apis.NewUnauthorizedError(tokenEnded.text, nil)
			}
			return fmt.Errorf("find session %s: %w", reg.session, err)
		}
		e.Record.Set("session", reg.session)
	}
	if err := e.Next(); err != nil {
		return err
	}
	// Another save of the same object is an ordinary one.
	e.Record.SetRaw(registrationKey, nil)
	e.Record.SetRaw(claimedKey, e.Record.GetString("user"))
	return g.dropSurplusDevices(e.App, e.Record)
}

// removeRow deletes a row without a trace: what refers to it goes on referring to
// the one that takes its id.
func removeRow(txApp core.App, r *core.Record) error {
	if _, err := txApp.DB().Delete(r.TableName(), dbx.HashExp{"id": r.Id}).Execute(); err != nil {
		return fmt.Errorf("delete device %s: %w", r.Id, err)
	}
	return nil
}

// moveDevice decides whether the device whose row is known may become that of
// taken, counts it, and says so in the log once it is committed. It does nothing
// when both have the same owner.
func (g *groundwork) moveDevice(txApp core.App, known, taken *core.Record, reg *registration) error {
	from, to := known.GetString("user"), taken.GetString("user")
	if from == to {
		return nil
	}
	now := time.Now()
	hash := tokenHash(known.GetString("token"))

	// Nobody loses pushes by the move of a device that gets none: signing out and
	// in as somebody else is free.
	counted := !reg.superuser && known.GetString("status") == "active"
	if counted {
		home, err := homeOf(txApp, hash)
		if err != nil {
			return err
		}
		counted = to != home
	}
	entry := []any{
		"device", known.Id, "from", from, "to", to, "token", maskDeviceToken(known.GetString("token")), "superuser", reg.superuser, "requestId", reg.requestID,
	}
	if counted {
		for _, limit := range []struct {
			column, value string
			max           int
			sentence      string
		}{
			{"tokenHash", hash, maxMovesPerToken, "This device changed hands too often today. Try again tomorrow, or sign in with the account that had it before."},
			{"toUser", to, maxMovesPerUser, "Too many devices were moved to this account today. Try again tomorrow."},
		} {
			wait, err := moveWait(txApp, limit.column, limit.value, limit.max, now)
			if err != nil {
				return err
			}
			if wait > 0 {
				reg.retryAfter = wait
				g.log.Warn("device move refused", append(entry, "limit", limit.column)...)
				return apis.NewTooManyRequestsError(limit.sentence, nil)
			}
		}
	}

	if _, err := txApp.DB().Insert("groundwork_device_moves", dbx.Params{
		"tokenHash": hash, "fromUser": from, "toUser": to, "counted": counted, "movedAt": now.UnixMilli(),
	}).Execute(); err != nil {
		return fmt.Errorf("count the move of device %s: %w", known.Id, err)
	}
	if _, err := txApp.DB().Delete("groundwork_device_moves", dbx.NewExp("[[movedAt]] < {:before}",
		dbx.Params{"before": now.Add(-deviceMovesKept).UnixMilli()})).Execute(); err != nil {
		return fmt.Errorf("delete old device moves: %w", err)
	}
	renewDates(taken)
	txApp.TxInfo().OnComplete(func(txErr error) error {
		if txErr == nil {
			g.log.Info("device moved", entry...)
		}
		return nil
	})
	return nil
}

// homeOf is the person who had a device before its first move that is still
// remembered; empty when it did not move.
func homeOf(txApp core.App, hash string) (string, error) {
	var home string
	err := txApp.DB().Select("fromUser").From("groundwork_device_moves").
		Where(dbx.HashExp{"tokenHash": hash}).OrderBy("movedAt", "id").Limit(1).Row(&home)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("find who had a device first: %w", err)
	}
	return home, nil
}

// moveWait returns how long a move has to wait; zero when it may happen.
func moveWait(txApp core.App, column, value string, max int, now time.Time) (time.Duration, error) {
	// The oldest of the last max moves: when it leaves the window there is room.
	var at int64
	err := txApp.DB().Select("movedAt").From("groundwork_device_moves").
		Where(dbx.HashExp{column: value, "counted": true}).
		AndWhere(dbx.NewExp("[[movedAt]] > {:since}", dbx.Params{"since": now.Add(-deviceMoveWindow).UnixMilli()})).
		OrderBy("movedAt DESC").Offset(int64(max - 1)).Limit(1).Row(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("count device moves: %w", err)
	}
	return time.UnixMilli(at).Add(deviceMoveWindow).Sub(now), nil
}

// dropSurplusDevices deletes what its owner has beyond maxDevicesPerUser, never r.
func (g *groundwork) dropSurplusDevices(txApp core.App, r *core.Record) error {
	var surplus []*core.Record
	err := txApp.RecordQuery(r.Collection()).
		AndWhere(dbx.HashExp{"user": r.GetString("user")}).AndWhere(dbx.Not(dbx.HashExp{"id": r.Id})).
		OrderBy("CASE [[status]] WHEN 'active' THEN 0 ELSE 1 END", "registeredAt DESC", "id").
		Offset(maxDevicesPerUser - 1).Limit(maxDevicesPerUser).All(&surplus)
	if err != nil {
		return fmt.Errorf("find devices beyond the limit: %w", err)
	}
	for _, old := range surplus {
		if err := txApp.Delete(old); err != nil {
			return fmt.Errorf("delete device %s beyond the limit: %w", old.Id, err)
		}
		id, user := old.Id, old.GetString("user")
		txApp.TxInfo().OnComplete(func(txErr error) error {
			if txErr == nil {
				g.log.Info("device removed: its owner has too many", "device", id, "user", user)
			}
			return nil
		})
	}
	return nil
}

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(deviceAddress(token)))
	return hex.EncodeToString(sum[:])
}

// maskDeviceToken keeps what tells two devices apart in a log.
func maskDeviceToken(token string) string {
	return notifications.MaskAddress(notifications.ChannelPush, token)
}

var (
	apnsToken    = regexp.MustCompile(`^[0-9a-f]{64,200}$`)
	notPrintable = regexp.MustCompile(`[^!-~]`)
)

// normalizeDevice brings the fields of a device into the one form that the rest
// relies on, and returns what is wrong, by field. What was stored before is left
// alone, so that an older value does not stand in the way of another change.
// Empty and overlong fields are PocketBase's to refuse.
func normalizeDevice(r *core.Record) validation.Errors {
	errs := validation.Errors{}
	before := r.Original()
	fresh := r.IsNew() || registrationOf(r) != nil
	changed := func(name string) bool { return fresh || r.GetString(name) != before.GetString(name) }

	platform := r.GetString("platform")
	services := pushServices[platform]
	if r.GetString("pushService") == "" && len(services) > 0 {
		r.Set("pushService", services[0])
	}
	service := r.GetString("pushService")
	if service != "apns" {
		r.Set("environment", "") // only Apple has two
	}
	rerouted := changed("platform") || changed("pushService")
	fits := slices.Contains(services, service)
	if rerouted && len(services) > 0 && service != "" && !fits {
		errs["pushService"] = sentence("invalid_push_service",
			fmt.Sprintf("on %s push messages go by %s; leave this empty for %s", platform, strings.Join(services, " or "), services[0]))
	}

	for _, name := range []string{"token", "locale", "timezone"} {
		if changed(name) {
			r.Set(name, strings.TrimSpace(r.GetString(name)))
		}
	}
	if token := r.GetString("token"); fits && token != "" && (rerouted || changed("token")) {
		if field, ok := r.Collection().Fields.GetByName("token").(*core.TextField); !ok || len(token) <= 2*field.Max {
			normal, problem := normalizeToken(service, token)
			if problem != "" {
				errs["token"] = sentence("invalid_token", problem)
			} else {
				r.Set("token", normal)
			}
		}
	}

	if locale := r.GetString("locale"); locale != "" && changed("locale") {
		if tag, err := language.Parse(locale); err != nil {
			errs["locale"] = sentence("invalid_locale", "this is not a language code; write it like en or fr-CA")
		} else {
			r.Set("locale", tag.String())
		}
	}
	if zone := r.GetString("timezone"); zone != "" && changed("timezone") {
		if _, err := time.LoadLocation(zone); err != nil || zone == "Local" {
			errs["timezone"] = sentence("invalid_timezone", "this is not a time zone; write it like Europe/Berlin")
		}
	}
	return errs
}

// normalizeToken returns the stored form of a token, or what is wrong with it.
func normalizeToken(service, token string) (normal, problem string) {
	switch service {
	case "apns":
		if token = strings.ToLower(token); !apnsToken.MatchString(token) {
			return "", "this is not an Apple device token; send its bytes as 64 to 200 hexadecimal digits"
		}
		return token, ""
	case "webpush":
		return normalizeSubscription(token)
	default:
		if strings.HasPrefix(token, "{") {
			return "", "this is not a Firebase token; a browser's subscription goes with the platform web"
		}
		if notPrintable.MatchString(token) {
			return "", "this is not a Firebase token; send it as the app got it, without spaces"
		}
		return token, ""
	}
}

// The stored form of a subscription begins with its endpoint, and the keys follow
// at once: findDevice looks for that beginning.
const (
	webPushPrefix = `{"endpoint":"`
	webPushKeys   = `,"keys":{"`
)

// normalizeSubscription reads a PushSubscription as JSON (what
// JSON.stringify(subscription) gives) and writes it in its stored form.
// https://www.w3.org/TR/push-api/#dom-pushsubscription-tojson
func normalizeSubscription(token string) (normal, problem string) {
	var sub struct {
		Endpoint string `json:"endpoint"`
		Keys     struct {
			P256dh string `json:"p256dh"`
			Auth   string `json:"auth"`
		} `json:"keys"`
	}
	if json.Unmarshal([]byte(token), &sub) != nil {
		return "", "this is not a browser's push subscription; send JSON.stringify(subscription)"
	}
	u, err := url.Parse(strings.TrimSpace(sub.Endpoint))
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || notPrintable.MatchString(u.String()) {
		return "", "the endpoint of the subscription is not an https address; send JSON.stringify(subscription)"
	}
	// A host is the same in any case, with its usual port and without: one address
	// has one row.
	u.Host = strings.TrimSuffix(strings.ToLower(u.Host), ":443")
	u.Fragment, u.RawFragment = "", ""

	key, err := decodeBase64URL(sub.Keys.P256dh)
	if err == nil {
		_, err = ecdh.P256().NewPublicKey(key) // uncompressed, 65 bytes, and on the curve
	}
	if err != nil {
		return "", "the key keys.p256dh of the subscription does not have 65 bytes or is broken; send JSON.stringify(subscription)"
	}
	secret, err := decodeBase64URL(sub.Keys.Auth)
	if err != nil || len(secret) != 16 {
		return "", "the key keys.auth of the subscription does not have 16 bytes; send JSON.stringify(subscription)"
	}

	sub.Endpoint = u.String()
	sub.Keys.P256dh = base64.RawURLEncoding.EncodeToString(key)
	sub.Keys.Auth = base64.RawURLEncoding.EncodeToString(secret)
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // an & in the endpoint stays readable
	if err := enc.Encode(sub); err != nil {
		return "", "this subscription cannot be stored; send JSON.stringify(subscription)"
	}
	return strings.TrimSpace(out.String()), ""
}

// decodeBase64URL takes the alphabet of browsers and that of other programs, with
// and without padding.
func decodeBase64URL(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(s))
}
