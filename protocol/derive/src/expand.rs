//! What a derive macro does, as a function from the struct to the code.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, GenericParam, Generics, Lifetime, LifetimeParam, LitStr,
    Member, Path, Result, Type, parse_quote,
};

/// The module that derived code names unless an attribute names another one.
pub(crate) enum Home {
    Protocol,
    Runtime,
}

pub(crate) fn pack(input: &DeriveInput, home: &Home) -> Result<TokenStream> {
    let form = Form::of(input, "Pack", home)?;
    let (name, iproto) = (&input.ident, &form.iproto);
    let generics = bounded(&input.generics, &parse_quote!(#iproto::Pack));
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let fields = form.fields.iter().map(|field| {
        let (Field { member, ty, .. }, mode) = (field, field.mode(iproto));
        quote_spanned!(ty.span()=> #iproto::Pack::pack_to(&self.#member, _out, #mode)?;)
    });
    Ok(quote! {
        #[automatically_derived]
        #[allow(unused_qualifications)]
        impl #impl_generics #iproto::Pack for #name #type_generics #where_clause {
            fn pack_to(
                &self,
                _out: &mut #iproto::pack::derived::Vec<u8>,
                _mode: #iproto::Mode,
            ) -> ::core::result::Result<(), #iproto::pack::PackError> {
                #(#fields)*
                ::core::result::Result::Ok(())
            }
        }
    })
}

pub(crate) fn unpack(input: &DeriveInput, home: &Home) -> Result<TokenStream> {
    let form = Form::of(input, "Unpack", home)?;
    let (name, iproto) = (&input.ident, &form.iproto);
    let bytes: Lifetime = parse_quote!('__bytes);
    let trait_path: Path = parse_quote!(#iproto::Unpack<#bytes>);
    let (_, type_generics, _) = input.generics.split_for_impl();

    // The bytes outlive whatever the struct borrows from them.
    let mut generics = bounded(&input.generics, &trait_path);
    let mut lifetime = LifetimeParam::new(bytes);
    lifetime.bounds.extend(input.generics.lifetimes().map(|param| param.lifetime.clone()));
    generics.params.insert(0, GenericParam::Lifetime(lifetime));
    let (impl_generics, _, where_clause) = generics.split_for_impl();

    let bytes_min = form.fields.iter().map(|Field { ty, ber, .. }| {
        let bytes_min = quote_spanned!(ty.span()=> <#ty as #trait_path>::BYTES_MIN);
        if *ber { quote!(#iproto::pack::derived::ber_bytes_min(#bytes_min)) } else { bytes_min }
    });
    let fields = form.fields.iter().map(|field| {
        let (Field { member, ty, .. }, mode) = (field, field.mode(iproto));
        quote_spanned! {ty.span()=>
            #member: <#ty as #trait_path>::unpack_from(_input, #mode)?
        }
    });
    Ok(quote! {
        #[automatically_derived]
        #[allow(unused_qualifications)]
        impl #impl_generics #trait_path for #name #type_generics #where_clause {
            const BYTES_MIN: usize = 0 #(+ #bytes_min)*;

            fn unpack_from(
                _input: &mut #iproto::pack::Unpacker<'__bytes>,
                _mode: #iproto::Mode,
            ) -> ::core::result::Result<Self, #iproto::pack::UnpackError> {
                ::core::result::Result::Ok(Self { #(#fields),* })
            }
        }
    })
}

/// What is packed, and how.
struct Form<'a> {
    /// The path of the module.
    iproto: Path,
    fields: Vec<Field<'a>>,
}

struct Field<'a> {
    member: Member,
    ty: &'a Type,
    ber: bool,
}

impl<'a> Form<'a> {
    fn of(input: &'a DeriveInput, derived: &str, home: &Home) -> Result<Self> {
        let fields = match &input.data {
            Data::Struct(data) => &data.fields,
            Data::Enum(data) => return Err(no_form(data.enum_token.span(), derived, "an enum")),
            Data::Union(data) => return Err(no_form(data.union_token.span(), derived, "a union")),
        };
        let mut form = Self { iproto: module(&input.attrs, home)?, fields: Vec::new() };
        for (member, field) in fields.members().zip(fields) {
            form.fields.push(Field { member, ty: &field.ty, ber: is_ber(&field.attrs)? });
        }
        Ok(form)
    }
}

impl Field<'_> {
    fn mode(&self, iproto: &Path) -> TokenStream {
        if self.ber { quote!(#iproto::Mode::Ber) } else { quote!(#iproto::Mode::Default) }
    }
}

fn no_form(span: Span, derived: &str, what: &str) -> Error {
    let why = "the packed form of a struct is its fields in order, and nothing says which of \
               several forms comes";
    let message = format!("`{derived}` cannot be derived for {what}: {why}; implement it by hand");
    Error::new(span, message)
}

/// The path that the attributes of a struct give to the module, or that of its home.
fn module(attrs: &[Attribute], home: &Home) -> Result<Path> {
    let mut path = None;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("iproto")) {
        attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                let known = "a struct can have `crate = \"path\"`, a field `ber`";
                return Err(meta.error(format!("this is no attribute of a struct: {known}")));
            }
            if path.is_some() {
                return Err(meta.error("`crate` is there twice; remove one"));
            }
            path = Some(meta.value()?.parse::<LitStr>()?.parse()?);
            Ok(())
        })?;
    }
    Ok(path.unwrap_or_else(|| match home {
        Home::Protocol => parse_quote!(::hioload_protocol::iproto),
        Home::Runtime => parse_quote!(::hioload::iproto),
    }))
}

/// Whether the attributes of a field mark it.
fn is_ber(attrs: &[Attribute]) -> Result<bool> {
    let mut ber = false;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("iproto")) {
        attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("ber") {
                return Err(meta.error("this is no attribute of a field: it can have `ber`"));
            }
            if ber {
                return Err(meta.error("`ber` is there twice; remove one"));
            }
            ber = true;
            Ok(())
        })?;
    }
    Ok(ber)
}

/// The same generics, with each type bounded by the trait.
fn bounded(generics: &Generics, bound: &Path) -> Generics {
    let mut generics = generics.clone();
    for param in generics.type_params_mut() {
        param.bounds.push(parse_quote!(#bound));
    }
    generics
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("enum E { A }", "cannot be derived for an enum")]
    #[case("union U { a: u8 }", "cannot be derived for a union")]
    #[case("struct S { #[iproto(berr)] a: u8 }", "no attribute of a field: it can have `ber`")]
    #[case("struct S(#[iproto(ber, ber)] u8);", "`ber` is there twice")]
    #[case("struct S(#[iproto(ber)] #[iproto(ber)] u8);", "`ber` is there twice")]
    #[case("struct S(#[iproto(ber = 1)] u8);", "expected `,`")]
    #[case("struct S(#[iproto] u8);", "expected attribute arguments in parentheses")]
    #[case("#[iproto(ber)] struct S;", "no attribute of a struct: a struct can have `crate")]
    #[case("#[iproto(crate = \"a\", crate = \"b\")] struct S;", "`crate` is there twice")]
    #[case("#[iproto(crate = 1)] struct S;", "expected string literal")]
    fn what_has_no_form_is_said(#[case] code: &str, #[case] expected: &str) {
        let input = syn::parse_str(code).expect("it is Rust");
        for expanded in [pack(&input, &Home::Protocol), unpack(&input, &Home::Protocol)] {
            let message = expanded.expect_err("it has no form").to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
