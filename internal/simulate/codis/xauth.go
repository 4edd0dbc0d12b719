package codis

import (
	"crypto/md5" //nolint:gosec // tokens are defined with it
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// DashboardXAuth is what calls of a dashboard carry in their path: a hash of the product's name. It hides nothing.
func DashboardXAuth(product string) string { return xauth(product) }

// ProxyXAuth is what calls of a proxy carry in their path; the token is the proxy's own.
func ProxyXAuth(product, productAuth, token string) string { return xauth(product, productAuth, token) }

func xauth(parts ...string) string {
	text := "Codis-XAuth"
	for _, p := range parts {
		text += "-[" + p + "]"
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// token names a process by the machine's network cards and its own addresses: the same after a restart on the same ports.
func token(parts ...string) string {
	text := "Codis-Token@[02:42:ac:11:00:02]"
	for _, p := range parts {
		text += fmt.Sprintf("-{%s}", p)
	}
	sum := md5.Sum([]byte(text)) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}
