package CC::Block::Spec;

# Reads the text behind __DATA__ into blocks of sections, in the format of
# Test::Base: "=== name", "--- section filters", "--- section filters: value".

use v5.36;
use Carp qw(croak);
use CC::Block::Filter;

sub parse ($text) {
    return if !defined $text;
    my @blocks;
    for my $hunk ($text =~ /^(===.*?(?=^===|\z))/msg) {
        my $block = CC::Block::Spec::Block->new($hunk);
        if ($block->has('ONLY')) {
            require Test::More;
            Test::More::diag('I found ONLY: maybe you are debugging?');
            return $block;
        }
        next if $block->has('SKIP');
        push @blocks, $block;
        last if $block->has('LAST');
    }
    return @blocks;
}

package CC::Block::Spec::Block;

use v5.36;
use Carp qw(croak);

our $AUTOLOAD;

sub new ($class, $hunk) {
    $hunk =~ s/\A===[ \t]*(.*?)[ \t]*(?:\n|\z)//;
    my $self = bless { name => $1, order => [], filters => {}, value => {}, asked => {} },
        $class;
    my ($description, @parts) =
        split /^---[ ]+\(?(\w+)\)?[ ]*(.*)(?:\n|\z)/m, $hunk;
    $description = $self->{name} if ($description // '') !~ /\S/;
    $self->{value}{description} = [ $description =~ s/\s+\z//r ];

    while (my ($section, $filters, $value) = splice @parts, 0, 3) {
        croak "$self->{name}: --- $section is given twice" if $self->has($section);
        $value   //= '';
        $filters //= '';
        if ($filters =~ /:(?:\s|\z)/) {
            croak "$self->{name}: text below the one-line section --- $section"
                if $value =~ /\S/;
            ($filters, $value) = split /\s*:(?:\s+|\z)/, $filters, 2;
            $value = ($value // '') =~ s/^\s+|\s+$//gr;
        }
        push @{ $self->{order} }, $section;
        $self->{filters}{$section} = $filters;
        $self->{value}{$section}   = [$value];
    }
    return $self;
}

sub name ($self)           { $self->{name} }
sub has ($self, $section)  { exists $self->{value}{$section} }
sub sections ($self)       { @{ $self->{order} } }

# The value in scalar context; undef when absent.
sub get ($self, $section)  { ($self->{value}{$section} // [])->[0] }

sub set_value ($self, $section, @values) {
    if ($section eq 'name') { $self->{name} = $values[0]; return }
    $self->{asked}{$section} = 1;
    $self->{value}{$section} = \@values;
    return;
}

# Sections no part of a test program has ever asked for.
sub unasked ($self) { grep { !$self->{asked}{$_} } $self->sections }

# Test programs ask with $block->section, as under Test::Base.
sub AUTOLOAD {
    my $self = shift;
    my $section = $AUTOLOAD =~ s/.*:://r;
    return if $section eq 'DESTROY' || !ref $self;
    $self->{asked}{$section} = 1;
    my @values = @{ $self->{value}{$section} // [] };
    return wantarray ? @values : $values[0];
}

# Once: norm and trim always, then $map->{section}, then those of the header.
sub run_filters ($self, $map) {
    return if $self->{filtered}++;
    for my $section ($self->sections) {
        my $always = $map->{$section} // [];
        my (@run, @last);
        for my $name (qw(norm trim), ref $always ? @$always : $always,
            split ' ', $self->{filters}{$section})
        {
            if    ($name =~ /^-(.+)/)  { @run = grep { $_ ne $1 } @run }
            elsif ($name =~ /^\+(.+)/) { push @last, $1 }
            else                       { push @run, $name }
        }
        for my $name (@run, @last) {
            my @new = eval { CC::Block::Filter::apply($name, @{ $self->{value}{$section} }) };
            die "$self->{name}: --- $section $name: $@" if $@;
            $self->{value}{$section} = \@new;
        }
    }
    return;
}

1;
