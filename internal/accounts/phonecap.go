package accounts

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// capWindow is the length of the window in which texts are counted. It slides: no
// hour, wherever it begins, has more.
const capWindow = time.Hour

// prefixTail is how many last digits do not count when numbers are compared:
// those who earn by texts own rows of numbers, rarely fewer than 10,000.
const prefixTail = 4

// CountText counts a text in the transaction that asks for it and says whether it
// is one too many; then it is not counted. wanted is false for one that is not
// going to be sent anyway: it costs the same work and counts nothing.
//
// The rows are in the database, so that a restart forgets nothing and several
// processes count together. Call it after the first write of the transaction: the
// count would otherwise be read before another process's was committed.
func (c Codes) CountText(txApp core.App, collection, phone string, s PhoneSettings, wanted bool) (capped bool, err error) {
	prefix, err := c.Key.MAC("phone prefix", collection, phone[:max(len(phone)-prefixTail, 0)])
	if err != nil {
		return false, fmt.Errorf("hash phone prefix: %w", err)
	}
	key, now := hex.EncodeToString(prefix), time.Now().UnixMilli()
	since := now - capWindow.Milliseconds()
	if _, err := txApp.DB().Delete("groundwork_phone_texts", dbx.NewExp("[[at]] <= {:since}", dbx.Params{"since": since})).Execute(); err != nil {
		return false, fmt.Errorf("delete old texts: %w", err)
	}
	var n struct {
		All    int `db:"everybody"`
		Prefix int `db:"prefix"`
	}
	err = txApp.DB().NewQuery("SELECT (SELECT count(*) FROM {{groundwork_phone_texts}} WHERE [[collection]] = {:collection} AND [[counted]] = 1 AND [[at]] > {:since}) AS [[everybody]]," +
		" (SELECT count(*) FROM {{groundwork_phone_texts}} WHERE [[collection]] = {:collection} AND [[prefixKey]] = {:prefix} AND [[counted]] = 1 AND [[at]] > {:since}) AS [[prefix]]").
		Bind(dbx.Params{"collection": collection, "prefix": key, "since": since}).One(&n)
	if err != nil {
		return false, fmt.Errorf("count texts: %w", err)
	}
	capped = wanted && (n.All >= s.MaxPerHour || n.Prefix >= s.MaxPerPrefixPerHour)
	_, err = txApp.DB().Insert("groundwork_phone_texts", dbx.Params{"collection": collection, "prefixKey": key, "counted": wanted && !capped, "at": now}).Execute()
	if err != nil {
		return false, fmt.Errorf("count text: %w", err)
	}
	return capped, nil
}
