package providertest_test

import (
	"crypto/ecdh"
	"encoding/base64"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(s)
	require.NoError(t, err)
	return raw
}

// TestWebPushReadsTheStandardsExample holds the double's decryption against the
// example of RFC 8291, 5.
func TestWebPushReadsTheStandardsExample(t *testing.T) {
	t.Parallel()
	private, err := ecdh.P256().NewPrivateKey(unbase64(t, "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
	require.NoError(t, err)
	auth := unbase64(t, "BTBZMqHH6r4Tts7J_aSIgg")
	body := unbase64(t, "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN")
	plain, err := providertest.DecryptWebPush(private, auth, body)
	require.NoError(t, err)
	require.Equal(t, "When I grow up, I want to be a watermelon", string(plain))

	for at := range body {
		spoiled := append([]byte(nil), body...)
		spoiled[at] ^= 1
		if at >= 16 && at < 20 {
			continue // the record size: a larger one is as good
		}
		_, err := providertest.DecryptWebPush(private, auth, spoiled)
		require.Error(t, err, "byte %d", at)
	}
	for end := range body {
		_, err := providertest.DecryptWebPush(private, auth, body[:end])
		require.Error(t, err, "%d bytes", end)
	}
}

// TestWebPushKnowsTheStandardsSignature is the example of RFC 8292, 2.4.
func TestWebPushKnowsTheStandardsSignature(t *testing.T) {
	t.Parallel()
	const header = "vapid t=eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0." +
		"i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA, " +
		"k=BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
	claims, key, err := providertest.VerifyVAPID(header)
	require.NoError(t, err)
	require.Equal(t, providertest.VAPIDClaims{Audience: "https://push.example.net", Subject: "mailto:push@example.com", Expires: time.Unix(1453523768, 0)}, claims)
	require.Equal(t, header[len(header)-87:], key)
	spoiled := []byte(header)
	spoiled[len("vapid t=")+60]++
	_, _, err = providertest.VerifyVAPID(string(spoiled))
	require.Error(t, err)
}
