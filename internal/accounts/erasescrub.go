package accounts

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications"
)

// Erased stands where something about an erased person stood.
const Erased = "[erased]"

// leastValue is how long a text has to be, in bytes, to be looked for elsewhere:
// shorter ones are words that everybody uses.
const leastValue = 5

// leastToken is how long a device's token has to be, in bytes, to be one for certain:
// those of the push services are longer, and what an app sends may be a word.
const leastToken = 32

// Scrub finds erased people in texts that are kept for other reasons: logs, and
// the errors of jobs. It is made once and safe for concurrent use.
type Scrub struct {
	// certain finds what means one of them wherever it stands: ids, addresses, numbers,
	// tokens and names of files, which PocketBase makes unique. replacer finds their other
	// texts too. Those are words that people choose: somebody may be called "delivery",
	// so that nothing but wording hangs on them.
	certain, replacer *strings.Replacer

	ids     map[string]bool
	masks   map[string]bool // masked addresses that can only be theirs
	origins []origin
	agents  []origin
}

// origin is where signed-in requests of a person came from, if nobody else's did: a
// network address, or what a browser or app says about itself.
type origin struct{ collection, from string } // the collection's name

// scrubOf returns what finds these people.
func (e *Eraser) scrubOf(tasks []*task) (*Scrub, error) {
	s := &Scrub{ids: map[string]bool{}, masks: map[string]bool{}}
	var certain, words []string
	for _, t := range tasks {
		s.ids[t.trace.Account.ID] = true
		certain = append(certain, t.trace.Account.ID, t.trace.Email, t.trace.Phone)
		for _, token := range t.trace.Tokens {
			if len(token) >= leastToken {
				certain = append(certain, token)
			} else if len(token) >= leastValue {
				words = append(words, token)
			}
		}
		own, files, err := e.ownTexts(t.trace)
		if err != nil {
			return nil, err
		}
		words, certain = append(words, own...), append(certain, files...)
		for channel, address := range map[notifications.Channel]string{notifications.ChannelEmail: t.trace.Email, notifications.ChannelSMS: t.trace.Phone} {
			masked, err := e.ownMask(t.trace, channel, address)
			if err != nil {
				return nil, err
			}
			if masked != "" {
				s.masks[masked] = true
				certain = append(certain, masked)
			}
		}
		ips, agents, err := e.ownOrigins(t.trace)
		if err != nil {
			return nil, err
		}
		for _, agent := range agents {
			s.agents = append(s.agents, origin{t.trace.Account.CollectionName, agent})
		}
		for _, ip := range ips {
			s.origins = append(s.origins, origin{t.trace.Account.CollectionName, ip})
		}
	}
	s.certain, s.replacer = newReplacer(certain), newReplacer(append(words, certain...))
	return s, nil
}

// newReplacer replaces values in every way in which they are written into logs,
// JSON and addresses.
func newReplacer(values []string) *strings.Replacer {
	forms := map[string]bool{}
	for _, v := range values {
		if v == "" {
			continue
		}
		for _, form := range []string{v, strings.ToLower(v), url.QueryEscape(v), url.PathEscape(v), inJSON(v, true), inJSON(v, false)} {
			forms[form] = true
		}
	}
	ordered := make([]string, 0, len(forms))
	for form := range forms {
		ordered = append(ordered, form)
	}
	// The longest first: where two begin alike the first one in the list counts.
	slices.SortFunc(ordered, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(ordered))
	for _, form := range ordered {
		pairs = append(pairs, form, Erased)
	}
	return strings.NewReplacer(pairs...)
}

func inJSON(v string, escapeHTML bool) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(escapeHTML)
	if err := enc.Encode(v); err != nil {
		return v
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`)
}

// Text returns a text without the people.
func (s *Scrub) Text(text string) string {
	if text == "" {
		return text
	}
	return s.replacer.Replace(text)
}

// ownTexts are the texts of the account's other fields that nobody else has, and apart
// from them the names of its files.
func (e *Eraser) ownTexts(t *Trace) (own, files []string, err error) {
	collection, err := e.App.FindCachedCollectionByNameOrId(t.Account.Collection)
	if err != nil {
		return nil, nil, nil // the whole collection was deleted
	}
	for field, values := range t.Values {
		f := collection.Fields.GetByName(field)
		if f == nil {
			continue
		}
		if f.Type() == core.FieldTypeFile {
			files = append(files, values...)
			continue
		}
		for _, v := range values {
			var n int
			if err := e.App.ConcurrentDB().Select("count(*)").From(collection.Name).Where(dbx.HashExp{field: v}).Row(&n); err != nil {
				return nil, nil, fmt.Errorf("look for others with the same %s: %w", field, err)
			}
			if n == 0 {
				own = append(own, v)
			}
		}
	}
	return own, files, nil
}

// names says whether decoded JSON has something in it that means one of the people for
// certain, the names of its fields included.
func (s *Scrub) names(v any) bool {
	switch v := v.(type) {
	case string:
		return s.certain.Replace(v) != v
	case map[string]any:
		for name, item := range v {
			if s.names(name) || s.names(item) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, s.names)
	}
	return false
}

// deletion takes the people out of the args of a message about a deleted record: out of
// all that is kept of the record, and elsewhere what means them for certain.
func (s *Scrub) deletion(v any) any {
	args, _ := v.(map[string]any)
	for name, item := range args {
		if name == "deleted" {
			args[name] = s.value(item)
		} else if text, ok := item.(string); ok {
			args[name] = s.certain.Replace(text)
		}
	}
	return v
}

// json returns JSON with what change makes of it decoded; nil when that is the same.
// The text itself must not be searched: what people write may look like a part of it.
func (s *Scrub) json(raw json.RawMessage, change func(any) any) json.RawMessage {
	v, ok := decode(raw)
	if !ok {
		return nil
	}
	before, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	after, err := json.Marshal(change(v))
	if err != nil || bytes.Equal(before, after) {
		return nil
	}
	return after
}

// decode reads JSON and leaves numbers as they are written.
func decode(raw json.RawMessage) (v any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return v, d.Decode(&v) == nil
}

// ownMask returns the masked form of an address, unless somebody else's looks the
// same.
func (e *Eraser) ownMask(t *Trace, channel notifications.Channel, address string) (string, error) {
	masked := notifications.MaskAddress(channel, address)
	before, after, ok := strings.Cut(masked, "…")
	collection, err := e.App.FindCachedCollectionByNameOrId(t.Account.Collection)
	if masked == "" || !ok || err != nil {
		return "", nil
	}
	field := core.FieldNameEmail
	if channel == notifications.ChannelSMS {
		field = FieldPhone
	}
	if collection.Fields.GetByName(field) == nil {
		return "", nil
	}
	var others []string
	err = e.App.ConcurrentDB().Select(field).From(collection.Name).
		Where(dbx.NewExp("[["+field+"]] != '' AND substr([["+field+"]], 1, length({:before})) = {:before} AND substr([["+field+"]], -length({:after})) = {:after}",
			dbx.Params{"before": before, "after": after})).Column(&others)
	if err != nil {
		return "", fmt.Errorf("look for others with a similar %s: %w", field, err)
	}
	for _, other := range others {
		if notifications.MaskAddress(channel, other) == masked {
			return "", nil
		}
	}
	return masked, nil
}

// ownOrigins are the addresses and programs from which nobody else signed in.
func (e *Eraser) ownOrigins(t *Trace) (ips, agents []string, err error) {
	var logged []string
	err = e.App.AuxConcurrentDB().NewQuery("SELECT DISTINCT json_extract([[data]], '$.userIP') FROM {{_logs}} WHERE json_extract([[data]], '$.authId') = {:id} AND json_extract([[data]], '$.userIP') IS NOT NULL").
		Bind(dbx.Params{"id": t.Account.ID}).Column(&logged)
	if err != nil {
		return nil, nil, fmt.Errorf("read addresses in the log: %w", err)
	}
	for _, ip := range append(logged, t.IPs...) {
		address, err := netip.ParseAddr(ip)
		if err != nil || address.IsLoopback() {
			continue
		}
		others, err := e.signedInFrom("ip", ip, t.Account.ID)
		if err != nil {
			return nil, nil, err
		}
		if !others {
			var n int
			err := e.App.AuxConcurrentDB().NewQuery("SELECT COUNT(*) FROM {{_logs}} WHERE json_extract([[data]], '$.userIP') = {:ip} AND json_extract([[data]], '$.authId') NOT IN ('', {:id})").
				Bind(dbx.Params{"ip": ip, "id": t.Account.ID}).Row(&n)
			if err != nil {
				return nil, nil, fmt.Errorf("look for others at the same address: %w", err)
			}
			others = n > 0
		}
		if !others {
			ips = appendNew(ips, ip)
		}
	}
	for _, agent := range t.UserAgents {
		others, err := e.signedInFrom("userAgent", agent, t.Account.ID)
		if err != nil {
			return nil, nil, err
		}
		if !others && len(agent) >= leastValue {
			agents = append(agents, agent)
		}
	}
	return ips, agents, nil
}

// signedInFrom says whether anybody else has a session with this address or
// program.
func (e *Eraser) signedInFrom(column, value, account string) (bool, error) {
	sessions, err := e.App.FindCachedCollectionByNameOrId(CollectionSessions)
	if err != nil {
		return false, nil
	}
	var n int
	err = e.App.ConcurrentDB().Select("count(*)").From(sessions.Name).
		Where(dbx.HashExp{column: value}).AndWhere(dbx.Not(dbx.HashExp{"recordRef": account})).Row(&n)
	if err != nil {
		return false, fmt.Errorf("look for others with the same %s: %w", column, err)
	}
	return n > 0, nil
}

// LogRow takes the people out of a row of PocketBase's log, which it changes. keep
// is false when the whole row is about what one of them did.
func (s *Scrub) LogRow(message string, data map[string]any) (newMessage string, keep bool) {
	authID, _ := data["authId"].(string)
	if s.ids[authID] {
		return "", false
	}
	auth, _ := data["auth"].(string)
	for _, o := range s.origins {
		if (data["userIP"] == o.from || data["remoteIP"] == o.from) && auth == o.collection && authID == "" {
			return "", false
		}
		if data["userIP"] == o.from || data["remoteIP"] == o.from {
			blankOrigin(data, auth == "") // before they signed in, or somebody else there
		}
	}
	for _, o := range s.agents {
		if data["userAgent"] == o.from {
			blankOrigin(data, auth == "" || auth == o.collection && authID == "")
		}
	}
	request := data["type"] == "request"
	newMessage = s.Text(message)
	if request {
		newMessage = s.address(message)
	}
	named := newMessage != message
	for name, value := range data {
		before, _ := value.(string)
		data[name] = s.logField(name, value, request)
		named = named || before != "" && before != data[name]
	}
	if named {
		// Why a request of theirs was refused can say what they sent, such as a file's name.
		delete(data, "details")
	}
	return newMessage, true
}

// logField is a field of a row without the people. What the server and browsers write by
// themselves stays, whatever somebody called themselves.
func (s *Scrub) logField(name string, value any, request bool) any {
	text, ok := value.(string)
	switch {
	case !ok:
		return s.value(value)
	case request && (name == "type" || name == "method" || name == "auth"):
		return text
	case request && (name == "url" || name == "referer"):
		return s.address(text)
	case request && name == "userAgent":
		return s.certain.Replace(text)
	default:
		return s.Text(text)
	}
}

// address returns the address of a request without the people. The path is made of names
// that the server knows, and of ids and files.
func (s *Scrub) address(text string) string {
	path, query, has := strings.Cut(text, "?")
	path = s.certain.Replace(path)
	if !has {
		return path
	}
	return path + "?" + s.Text(query)
}

// blankOrigin empties where a logged request came from, if it may.
func blankOrigin(data map[string]any, may bool) {
	for _, name := range []string{"userIP", "remoteIP", "userAgent", "referer"} {
		if _, there := data[name]; there && may {
			data[name] = ""
		}
	}
}

func (s *Scrub) value(v any) any {
	switch v := v.(type) {
	case string:
		return s.Text(v)
	case map[string]any:
		for name, item := range v {
			v[name] = s.value(item)
		}
	case []any:
		for i, item := range v {
			v[i] = s.value(item)
		}
	}
	return v
}

// eraseLogs goes through all of PocketBase's log.
func (s *Scrub) eraseLogs(ctx context.Context, app core.App) (changed int, err error) {
	const page = 1000
	var last int64
	for {
		var rows []struct {
			RowID   int64  `db:"rowid"`
			Message string `db:"message"`
			Data    string `db:"data"`
		}
		err := app.AuxConcurrentDB().NewQuery("SELECT [[rowid]], [[message]], COALESCE([[data]], '') AS [[data]] FROM {{_logs}} WHERE [[rowid]] > {:last} ORDER BY [[rowid]] LIMIT {:page}").
			Bind(dbx.Params{"last": last, "page": page}).WithContext(ctx).All(&rows)
		if err != nil {
			return changed, fmt.Errorf("read log: %w", err)
		}
		for _, row := range rows {
			last = row.RowID
			data := map[string]any{}
			_ = json.Unmarshal([]byte(row.Data), &data) // PocketBase writes objects only
			before, err := json.Marshal(data)
			if err != nil {
				return changed, fmt.Errorf("read row of log: %w", err)
			}
			message, keep := s.LogRow(row.Message, data)
			after, err := json.Marshal(data)
			if err != nil {
				return changed, fmt.Errorf("encode row of log: %w", err)
			}
			switch {
			case !keep:
				_, err = app.AuxNonconcurrentDB().Delete("_logs", dbx.HashExp{"rowid": row.RowID}).Execute()
			case message != row.Message || string(after) != string(before):
				_, err = app.AuxNonconcurrentDB().Update("_logs", dbx.Params{"message": message, "data": string(after)}, dbx.HashExp{"rowid": row.RowID}).Execute()
			default:
				continue
			}
			if err != nil {
				return changed, fmt.Errorf("erase from log: %w", err)
			}
			changed++
		}
		if len(rows) < page {
			return changed, nil
		}
	}
}
