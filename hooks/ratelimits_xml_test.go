package hooks_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/stretchr/testify/require"
)

// XML is read by the names that fields have in Go, not by their tags: a form of
// the limits and one of a handler that differ in capitals would not be about the
// same code.
func TestCodesInXMLAreLimited(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	user := app.User("u@example.com", map[string]any{"phone": phoneA})

	request := func(action, token string) string {
		res := app.Send(http.MethodPost, "/api/collections/users/"+action, map[string]any{"phone": phoneA}, token)
		require.Equal(t, http.StatusOK, res.Status, res.String())
		return res.JSON(t)["otpId"].(string)
	}
	tries := func(id string) (n int) {
		require.NoError(t, app.ConcurrentDB().Select("tries").From("groundwork_phone_codes").Where(dbx.HashExp{"id": id}).Row(&n))
		return n
	}
	for _, route := range []struct{ request, try, element, token string }{
		{"request-phone-otp", "auth-with-otp", "Password", ""},
		{"request-phone-verification", "confirm-phone-verification", "Code", app.Token(user)},
	} {
		ids := []string{request(route.request, route.token), request(route.request, route.token)}
		statuses := map[int]int{}
		for i := range 20 {
			for _, name := range []string{"OTPId", "OTPID", "otpId"} {
				body := fmt.Sprintf("<x><%s>%s</%s><%s>0</%s></x>", name, ids[i%2], name, route.element, route.element)
				res := app.from(address(i), http.MethodPost, "/api/collections/users/"+route.try, "application/xml", body, "Authorization", route.token)
				statuses[res.Status]++
			}
		}
		require.Equal(t, 5, tries(ids[0])+tries(ids[1]), "%s: %v", route.try, statuses)
	}
}
