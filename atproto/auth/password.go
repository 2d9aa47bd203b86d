package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/tidings-dev/tidings/internal/private"
)

// argonCost is the cost of an argon2id hash, for a login as well as for an
// attacker.
type argonCost struct{ memory, time uint32 } // KiB, and passes over them

var (
	// newCost is OWASP's recommendation with the least memory. Passwords are
	// random and long, so that guessing is not a concern.
	newCost = argonCost{7 * 1024, 5}

	// maxCost limits the cost that a password file can impose on a login.
	maxCost = argonCost{64 * 1024, 10}
)

const (
	argonFormat = "$argon2id$v=19$m=%d,t=%d,p=1$"
	saltSize    = 16
	hashSize    = 32
)

// SetPassword creates a random password, stores its hash in file (mode 0600) and
// returns it. A previous password is replaced, and all its sessions end.
func SetPassword(file string) (password string, err error) {
	password = newPassword()
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	stored := passwordHash{newCost, salt, newCost.hash(password, salt)}
	if err := private.ReplaceFile(file, []byte(stored.String()+"\n")); err != nil {
		return "", fmt.Errorf("store password: %w", err)
	}
	return password, nil
}

// newPassword returns 120 random bits in groups that are easy to type.
func newPassword() string {
	text := strings.ToLower(rand.Text())[:24]
	return text[:6] + "-" + text[6:12] + "-" + text[12:18] + "-" + text[18:]
}

func (c argonCost) hash(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, c.time, c.memory, 1, hashSize)
}

// passwordHash is the content of the password file.
type passwordHash struct {
	cost       argonCost
	salt, hash []byte
}

func (p passwordHash) String() string {
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf(argonFormat, p.cost.memory, p.cost.time) + enc(p.salt) + "$" + enc(p.hash)
}

var errNoPassword = errors.New("no password is set: run `tidings hold password`")

func loadPassword(file string) (passwordHash, error) {
	content, err := private.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return passwordHash{}, errNoPassword
	}
	if err != nil && !errors.Is(err, private.ErrEmpty) {
		return passwordHash{}, fmt.Errorf("load password: %w", err)
	}
	stored, ok := parsePasswordHash(strings.TrimSpace(string(content)))
	if !ok {
		return passwordHash{}, fmt.Errorf("load password: %s has no valid hash: set a new password with `tidings hold password`", file)
	}
	return stored, nil
}

// parsePasswordHash reads a hash together with its cost.
func parsePasswordHash(text string) (p passwordHash, ok bool) {
	fields := strings.Split(text, "$")
	if len(fields) != 6 {
		return p, false
	}
	prefix := strings.Join(fields[:4], "$") + "$"
	if _, err := fmt.Sscanf(prefix, argonFormat, &p.cost.memory, &p.cost.time); err != nil {
		return p, false
	}
	var err1, err2 error
	p.salt, err1 = base64.RawStdEncoding.DecodeString(fields[4])
	p.hash, err2 = base64.RawStdEncoding.DecodeString(fields[5])
	bounded := p.cost.time > 0 && p.cost.time <= maxCost.time && p.cost.memory <= maxCost.memory
	return p, err1 == nil && err2 == nil && bounded && len(p.salt) == saltSize && len(p.hash) == hashSize
}

func (p passwordHash) matches(password string) bool {
	return subtle.ConstantTimeCompare(p.hash, p.cost.hash(password, p.salt)) == 1
}
