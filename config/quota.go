package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/notifier/quota"
)

// Quota limits the bytes of unique layers that owners have in records.
type Quota struct {
	// Tiers are the limits by name: `free: {limit: 5GiB}`. Required.
	Tiers map[string]Tier `option:"tiers"`

	// Owners lists the owners of a tier other than Default. Default: none.
	Owners []QuotaOwner `option:"owners"`

	// Default is the tier of all other owners. Default: they have no limit.
	Default string `option:"default"`
}

// Tier is a limit with a name.
type Tier struct {
	// Limit is the size of all layers of an owner, each once. Required.
	Limit Size `option:"limit"`
}

// QuotaOwner assigns a tier to an owner.
type QuotaOwner struct {
	// Owner is the DID of an owner. Required.
	Owner string `option:"owner"`

	// Tier is one of Quota.Tiers. Required.
	Tier string `option:"tier"`
}

func (q *Quota) check(m *mistakes) {
	if len(q.Tiers) == 0 && !m.at["options.quota.tiers"] {
		m.add("options.quota.tiers", "required; name a limit, such as `free: {limit: 5GiB}`")
	}
	for _, name := range slices.Sorted(maps.Keys(q.Tiers)) {
		path := "options.quota.tiers." + name
		m.check(path, quota.CheckTier(name))
		if q.Tiers[name].Limit == unset && !m.at[path] && !m.at[path+".limit"] {
			m.add(path+".limit", `required; use a size like "5GiB"`)
		}
	}
	if q.Default != "" {
		m.check("options.quota.default", q.checkTier(q.Default))
	}
	seen := map[string]bool{}
	for i, o := range q.Owners {
		path := fmt.Sprintf("options.quota.owners[%d]", i)
		if m.at[path] {
			continue
		}
		m.check(path+".owner", identity.ValidateDID(o.Owner))
		m.check(path+".tier", q.checkTier(o.Tier))
		if seen[o.Owner] {
			m.add(path+".owner", o.Owner+" is listed twice")
		}
		seen[o.Owner] = true
	}
}

// checkTier returns an error for a tier that does not exist.
func (q *Quota) checkTier(tier string) error {
	if _, ok := q.Tiers[tier]; ok {
		return nil
	}
	known := slices.Sorted(maps.Keys(q.Tiers))
	switch near := nearest(tier, known); {
	case len(known) == 0:
		return fmt.Errorf("%q is unknown: there are no tiers", tier)
	case tier == "":
		return fmt.Errorf("required; use one of the tiers: %s", strings.Join(known, ", "))
	case near != "":
		return fmt.Errorf("%q is not one of the tiers; did you mean %s?", tier, near)
	}
	return fmt.Errorf("%q is not one of the tiers: %s", tier, strings.Join(known, ", "))
}

// tiers returns the limits; none without the section.
func (q *Quota) tiers() quota.Tiers {
	t := quota.Tiers{Limits: map[string]int64{}, Owners: map[string]string{}}
	if q == nil {
		return t
	}
	t.Default = q.Default
	for name, tier := range q.Tiers {
		t.Limits[name] = int64(tier.Limit)
	}
	for _, o := range q.Owners {
		t.Owners[o.Owner] = o.Tier
	}
	return t
}

// QuotaTiers returns the limits of owners; none without the section.
func (o *Options) QuotaTiers() quota.Tiers { return o.Quota.tiers() }

// tierMap decodes the tiers.
func (m *mistakes) tierMap(path string, raw any) map[string]Tier {
	given, ok := m.section(path, raw)
	if !ok {
		return nil
	}
	tiers := map[string]Tier{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		tier := Tier{Limit: unset}
		if given[name] == nil {
			m.add(path+"."+name, "has no value; set its limit")
			continue
		}
		m.decodeStruct(path+"."+name, reflect.ValueOf(&tier).Elem(), given[name])
		tiers[name] = tier
	}
	return tiers
}

// quotaOwners decodes the list of owners.
func (m *mistakes) quotaOwners(path string, raw any) []QuotaOwner {
	v := reflect.ValueOf(raw)
	if v.Kind() != reflect.Slice {
		m.add(path, fmt.Sprintf("is %s, but must be a list of sections with owner and tier", kind(raw)))
		return nil
	}
	owners := make([]QuotaOwner, v.Len())
	for i := range owners {
		m.decodeStruct(fmt.Sprintf("%s[%d]", path, i), reflect.ValueOf(&owners[i]).Elem(), v.Index(i).Interface())
	}
	return owners
}
