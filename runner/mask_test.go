package runner

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

func TestMasker(t *testing.T) {
	t.Parallel()
	secret := "p\"ä ss+wörd/=&<1>"
	m := NewMasker(map[string]string{"a": secret, "empty": "", "pin": "4711", "b": "1>zzz", "key": "-----BEGIN\nMIIBOgIBAAJB\nshort\n-----END-----\n"})
	quoted, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	basic := base64.StdEncoding.EncodeToString([]byte("user:" + secret))
	for name, text := range map[string]string{
		"plain": "x" + secret + "y", "twice": secret + secret,
		"url": "http://u:" + url.QueryEscape(secret) + "@h/", "path": url.PathEscape(secret),
		"json": string(quoted), "go": strconv.Quote(secret), "base64": base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64url": base64.RawURLEncoding.EncodeToString([]byte(secret)), "basic": "Authorization: Basic " + basic,
		"overlapping": secret + "zzz", "a line of a key": "error near MIIBOgIBAAJB in key",
	} {
		got := m.String(text)
		if !strings.Contains(got, "[secret ") {
			t.Errorf("%s: %q was not masked", name, text)
		}
		for _, leak := range []string{secret, url.QueryEscape(secret), "wörd", "zzz", "MIIB"} {
			if strings.Contains(got, leak) {
				t.Errorf("%s: %q is left in %q", name, leak, got)
			}
		}
		if name == "basic" {
			if inside := base64.StdEncoding.EncodeToString([]byte("ss+wörd/=&<1>")); strings.Contains(got, inside[4:16]) {
				t.Errorf("basic: part of the secret is left in %q", got)
			}
		}
	}
	if got := m.String("nothing here"); got != "nothing here" {
		t.Errorf("got %q", got)
	}
	got := m.Value(map[string]any{"list": []any{"x4711", 4711, 47110, 80, nil, true}, "4711": 1.5})
	want := map[string]any{"list": []any{"x[secret pin]", "[secret pin]", 47110, 80, nil, true}, "[secret pin]": 1.5}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, wanted %v", got, want)
	}
	cause := errors.New("login with 4711 refused")
	masked := m.Error(cause)
	if masked.Error() != "login with [secret pin] refused" || !errors.Is(masked, cause) {
		t.Errorf("got %v", masked)
	}
}

// Whatever a secret is, JSON stays JSON of the same shape.
func TestMaskerJSON(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(map[string]any{"n": 1, "s": "a1b", "list": []any{1.5, true, nil, "{"}, "é\"1": map[string]any{}, "pin": 4711})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"1", "{", "\"", ",", ":", "4711", "null", "é", "\\"} {
		got := NewMasker(map[string]string{"s": secret}).JSON(raw)
		var v map[string]any
		if err := json.Unmarshal(got, &v); err != nil {
			t.Errorf("secret %q: %v in %s", secret, err, got)
		}
		if len(v) != 5 {
			t.Errorf("secret %q: %d keys in %s", secret, len(v), got)
		}
	}
	if got := string(NewMasker(map[string]string{"pin": "4711"}).JSON([]byte(`{"pin":4711,"x":47112}`))); got != `{"pin":"[secret pin]","x":47112}` {
		t.Errorf("got %s", got)
	}
}

func TestNoMasker(t *testing.T) { //nolint:paralleltest // it counts allocations
	m := NewMasker(map[string]string{"empty": ""})
	if m != nil || !m.Empty() || m.String("x") != "x" || m.Error(nil) != nil {
		t.Error("a masker of nothing masks something")
	}
	raw := []byte(`{}`)
	if n := testing.AllocsPerRun(10, func() { m.String("some text"); m.JSON(raw) }); n > 0 {
		t.Errorf("%v allocations where there is nothing to mask", n)
	}
}
