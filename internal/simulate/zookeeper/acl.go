package zookeeper

import (
	"crypto/sha1" //nolint:gosec // the digest scheme is defined with it
	"encoding/base64"
	"slices"
	"strings"
)

// The permissions of an ACL.
const (
	PermRead int32 = 1 << iota
	PermWrite
	PermCreate
	PermDelete
	PermAdmin

	PermAll = PermRead | PermWrite | PermCreate | PermDelete | PermAdmin
)

// ID is who somebody is: a scheme (world, digest, ip) and a name in it.
type ID struct{ Scheme, Name string }

// ACL gives an ID permissions on a node, not on those below it.
type ACL struct {
	Perms int32
	ID    ID
}

// Open lets everybody do everything.
func Open() []ACL { return []ACL{{PermAll, ID{"world", "anyone"}}} }

// digest is the ID of a client that has given user:password.
func digest(auth string) ID {
	user, _, _ := strings.Cut(auth, ":")
	sum := sha1.Sum([]byte(auth)) //nolint:gosec // as above
	return ID{"digest", user + ":" + base64.StdEncoding.EncodeToString(sum[:])}
}

// fix turns a list as a client sent it into the one that is stored: "auth" stands for everything that the client has shown.
func (x *txn) fix(acl []ACL) ([]ACL, error) {
	if x.ids == nil && len(acl) == 0 {
		return Open(), nil
	}
	var out []ACL
	for _, a := range acl {
		switch a.ID.Scheme {
		case "world":
			if a.ID.Name != "anyone" {
				return nil, ErrInvalidACL
			}
			out = append(out, a)
		case "auth":
			shown := false
			for _, id := range x.ids {
				if id.Scheme == "digest" {
					out = append(out, ACL{a.Perms, id})
					shown = true
				}
			}
			if !shown {
				return nil, ErrInvalidACL
			}
		case "digest":
			if strings.Count(a.ID.Name, ":") != 1 {
				return nil, ErrInvalidACL
			}
			out = append(out, a)
		case "ip":
			out = append(out, a)
		default:
			return nil, ErrInvalidACL
		}
	}
	if len(out) == 0 {
		return nil, ErrInvalidACL
	}
	return out, nil
}

func (x *txn) check(n *node, perm int32) error {
	if x.ids == nil || allowed(n, x.ids, perm) {
		return nil
	}
	return ErrNoAuth
}

func allowed(n *node, ids []ID, perm int32) bool {
	return slices.ContainsFunc(n.acl, func(a ACL) bool {
		return a.Perms&perm != 0 && (a.ID == ID{"world", "anyone"} || slices.Contains(ids, a.ID))
	})
}
