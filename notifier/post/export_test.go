package post

// What the tests of package post_test share with those here. They are in a package of their
// own because posttest imports this one.
const FullTemplate = fullTemplate

var (
	When         = when
	Golden       = golden
	CheckRecord  = checkRecord
	MustTemplate = mustTemplate
	FacetsOf     = facets
	Target       = target
)
